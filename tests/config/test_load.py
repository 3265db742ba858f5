import json
import os
from pathlib import Path

import pytest
import yaml

from natix_lib import config
from natix_lib.config.form import form
from natix_lib.config.step_settings import TrainSettings, step_settings
from natix_lib.errors import ConfigError
from natix_lib.steps import check
from tests.config_texts import VALID, config_texts

MINIMAL = {"data": {"data_root": "images"}, "model": {"backbone_id": "vit"}, "export": {"policy": "sweep"}}


def with_values(**sections: dict) -> dict:
    return {name: {**MINIMAL.get(name, {}), **sections.get(name, {})} for name in {**MINIMAL, **sections}}


def refusal(values: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(config.Config, values)
    return str(caught.value)


def test_three_mistakes_are_reported_at_once_in_one_line() -> None:
    message = refusal(
        with_values(
            data={"dataloader": {"batch_sise": 8}}, model={"dropout_rate": 1.5}, split={"ratios": {"train": 0.9}}
        )
    )
    assert message.startswith("config: 3 mistakes: ")
    assert "data.dataloader.batch_sise is not a known key, did you mean batch_size?" in message
    assert "model.dropout_rate: input should be less than 1, got 1.5" in message
    assert "split.ratios must sum to 1, got 1.300: [0.9, 0.1, 0.15, 0.15]" in message
    assert "\n" not in message


def test_a_column_is_one_thing() -> None:
    message = refusal(with_values(data={"columns": {"label": "class", "group": "class"}}))
    assert message == "config: data.columns must name each column once, got 'class' twice"


def test_a_column_of_no_name_is_not_used_and_image_and_label_must_be() -> None:
    assert config.parse(config.Config, with_values(data={"columns": {"group": ""}})).data.columns.group == ""
    message = refusal(with_values(data={"columns": {"label": ""}}))
    assert message == "config: data.columns.label must name a column, got ''"


def test_text_and_float_numbers_are_coerced_but_fractions_of_a_whole_number_are_not() -> None:
    parsed = config.parse(
        config.Config, with_values(training={"optimizer": {"lr": "1e-4"}, "epochs": 3.0}, model={"num_classes": 13.0})
    )
    assert parsed.training.optimizer.lr == 1e-4
    assert parsed.training.epochs == 3 and isinstance(parsed.training.epochs, int)
    assert parsed.model.num_classes == 13
    assert "training.epochs: input should be a valid integer" in refusal(with_values(training={"epochs": 3.5}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_must_be_finite(value: float) -> None:
    assert "training.optimizer.lr" in refusal(with_values(training={"optimizer": {"lr": value}}))


def test_the_backbone_that_does_not_exist_is_refused_with_the_one_that_does() -> None:
    message = refusal(with_values(model={"backbone_id": "facebook/dinov3-vith16-pretrain-lvd1689m"}))
    assert message == (
        "config: model.backbone_id facebook/dinov3-vith16-pretrain-lvd1689m does not exist on the hub: "
        "use facebook/dinov3-vith16plus-pretrain-lvd1689m"
    )


@pytest.mark.parametrize("name", config.DINOV3_HUB_NAMES)
def test_every_backbone_of_the_family_is_accepted(name: str) -> None:
    hub_id = f"facebook/dinov3-{name}-pretrain-lvd1689m"
    assert config.parse(config.Config, with_values(model={"backbone_id": hub_id})).model.backbone_id == hub_id


@pytest.mark.parametrize("policy", ["both", "", None])
def test_a_policy_other_than_one_of_the_two_is_refused(policy: object) -> None:
    assert "export.policy must name the one policy that ships, sweep or calibrate" in refusal(
        with_values(export={"policy": policy})
    )


def test_no_policy_is_refused_because_none_is_preferred() -> None:
    assert refusal({**MINIMAL, "export": {}}).endswith(
        "export.policy must name the one policy that ships, sweep or calibrate"
    )


def test_an_empty_config_names_every_key_that_it_needs() -> None:
    message = refusal({})
    for key in ("data.data_root", "model.backbone_id", "export.policy"):
        assert key in message


def test_half_precision_is_refused_with_its_reason() -> None:
    assert "explora.precision fp16 gives NaN with DINOv3: use bfloat16 or float32" in refusal(
        with_values(explora={"precision": "fp16"})
    )


def test_a_batch_that_is_no_multiple_and_a_range_that_falls_are_refused() -> None:
    assert "explora.batch_size must be a multiple of explora.device_batch_size, got 100 and 32" in refusal(
        with_values(explora={"batch_size": 100})
    )
    assert "explora.mask_ratio must rise, got [0.5, 0.1]" in refusal(with_values(explora={"mask_ratio": [0.5, 0.1]}))


def test_the_variant_of_the_pipeline_must_be_the_one_that_the_config_wants() -> None:
    without = form(config.parse(config.Config, MINIMAL))
    with_it = form(config.parse(config.Config, with_values(model={"init_from_explora": True})))
    with pytest.raises(ConfigError, match="init_from_explora is true but this pipeline was compiled without ExPLoRA"):
        check.run(with_it, without)
    with pytest.raises(ConfigError, match="init_from_explora is false but this pipeline was compiled with ExPLoRA"):
        check.run({**with_it, "model": {"init_from_explora": False}}, with_it)


def test_class_names_and_their_number_must_agree() -> None:
    message = refusal(with_values(data={"class_names": ["None", "Roadwork"]}, model={"num_classes": 13}))
    assert "model.num_classes is 13 but data.class_names names 2 classes" in message


def test_images_without_a_label_are_for_no_pipeline_without_adapt() -> None:
    kept = {"unlabelled": "adapt"}
    assert "data.unlabelled: adapt needs model.init_from_explora: true, as no" in refusal(with_values(data=kept))
    config.parse(config.Config, with_values(data=kept, model={"init_from_explora": True}))


def test_overrides_reach_nested_keys_and_are_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    parsed = config.load(path, ["training.optimizer.lr=5e-5", "data.class_names=[None, Roadwork]", "scrc.alpha=0.1"])
    assert parsed.training.optimizer.lr == 5e-5
    assert parsed.data.class_names == ["None", "Roadwork"]
    with pytest.raises(ConfigError, match=r"--set takes section.key=value, got 'scrc.alpha'"):
        config.load(path, ["scrc.alpha"])
    with pytest.raises(ConfigError, match="scrc.alfa is not a known key, did you mean alpha?"):
        config.load(path, ["scrc.alfa=1"])


def test_a_file_that_cannot_be_read_or_is_not_yaml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read config"):
        config.load(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("data: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        config.load(broken)


def test_a_step_sees_only_what_it_uses_so_that_the_cache_is_precise() -> None:
    plain = step_settings(config.parse(config.Config, MINIMAL))
    changed = step_settings(
        config.parse(
            config.Config,
            with_values(
                scrc={"alpha": 0.01}, data={"dataloader": {"batch_size": 7}}, hardware={"accelerator": "nvidia-h100"}
            ),
        )
    )
    assert {step for step in plain if plain[step] != changed[step]} == {"calibrate", "train"}


def test_settings_survive_the_floats_of_kfp() -> None:
    settings = step_settings(config.parse(config.Config, MINIMAL))["train"]
    settings["training"]["epochs"] = float(settings["training"]["epochs"])
    assert config.parse(TrainSettings, settings).training.epochs == 50


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent.parent / "pipelines" / "configs").glob("*.yaml")))
def test_the_configs_we_ship_are_valid(path: Path) -> None:
    overrides = ["data.data_root=images", "model.backbone_id=vit"] if path.name == "demo.yaml" else []
    config.load(path, overrides)


def config_or_one_line(path: Path) -> config.Config | str:
    """What a text gives; anything else than a config or a short line fails the test."""
    try:
        parsed = config.load(path)
    except ConfigError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) <= 1000 and str(error).isprintable()
        return str(error)
    json.dumps(step_settings(parsed), allow_nan=False).encode()  # what KFP is handed
    return parsed


@pytest.mark.parametrize("count", [pytest.param(60, id="60"), pytest.param(2000, id="2000", marks=pytest.mark.slow)])
def test_any_text_is_a_config_or_one_line(tmp_path: Path, count: int) -> None:
    path = tmp_path / "c.yaml"
    configs = 0
    for content in config_texts(count, seed=12):
        path.write_bytes(content)
        try:
            configs += isinstance(config_or_one_line(path), config.Config)
        except BaseException as error:
            error.add_note(f"the text was {content[:2000]!r}")
            raise
    assert count // 50 <= configs < count // 2  # neither all nonsense nor all well


def test_the_text_that_the_random_ones_damage_is_valid(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(VALID)
    assert config.load(tmp_path / "c.yaml").hardware.node_selector == {"pool": "gpu"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": None}, "training must be a section with keys below it, got None"),
        ({"training": [1]}, "training must be a section with keys below it, got [1]"),
        ({"training": "x" * 1_000_000}, "training must be a section with keys below it, got 'xxx"),
        ({"training": {"epochs": True}}, "training.epochs: input should not be true or false, got True"),
        ({"training": {"determinism": True}}, "training.determinism: input should be 'exact' or 'fast', got True"),
        (
            {"training": {"epochs": 10**5000}},
            "training.epochs: input should be at most 9007199254740992, got an integer of",
        ),
        ({"split": {"seed": "9" * 17}}, "split.seed: input should be at most 9007199254740992"),
        ({"split": {"seed": -(10**5000)}}, "got an integer of 16610 bits"),
        ({"data": {"data_root": "a\nb"}}, "data.data_root must not contain the character '\\n', got 'a\\nb'"),
        ({"data": {"data_root": "a\0b"}}, "data.data_root must not contain the character '\\x00'"),
        ({"data": {"data_root": "a\ud800"}}, "data.data_root must not contain the character '\\ud800'"),
        ({"a\nb": {}}, "a key must not contain the character '\\n'"),
        ({"model": {"backbone_id": 1234567}}, "model.backbone_id: input should be a valid string, got 1234567 (put it"),
        ({"model": {"backbone_id": "x", 1: 2}}, "model.1: keys should be strings, got 1"),
        (
            {"data": {"data_root": "ftp://a/b"}},
            "data.data_root must be a local path or gs://bucket/path or s3://bucket/path",
        ),
        ({"data": {"data_root": "https://user:pass@host/x"}}, "got 'https://***@host/x'"),
        ({"export": {"policy": "sweep", "publish_uri": "gs://Bucket/x"}}, "export.publish_uri must name a bucket"),
        ({"explora": {"checkpoint_root": "gs://bucket"}}, "explora.checkpoint_root must read gs://bucket/path"),
        ({"training": {"feature_cache_dir": "gs://bucket/x"}}, "training.feature_cache_dir must be a local path"),
        (
            {"training": {"feature_cache_dir": "kept", "feature_cache": False}},
            "training.feature_cache_dir needs training.feature_cache: true",
        ),
        (
            {"model": {"backbone_id": "x", "freeze_backbone": False}, "training": {"feature_cache_dir": "kept"}},
            "training.feature_cache_dir needs model.freeze_backbone: true",
        ),
        (
            {"training": {"fine_tune": {"method": "lora"}}},
            "training.fine_tune needs model.freeze_backbone: false, a frozen backbone is not tuned",
        ),
        (
            {"training": {"mixup": 0.2}},
            "training.mixup blends pixels: it needs model.freeze_backbone: false or training.feature_cache: false",
        ),
        (
            {"model": {"backbone_id": "x", "pooling": ["cls", "cls"]}},
            "model.pooling must name poolings, each once, or attentive alone, got ['cls', 'cls']",
        ),
        (
            {"model": {"backbone_id": "x", "pooling": ["attentive", "mean"]}},
            "model.pooling must name poolings, each once, or attentive alone, got ['attentive', 'mean']",
        ),
        (
            {"model": {"backbone_id": "patches", "image_size": 64, "pooling": ["max"]}},
            "model.pooling must be left out with model.backbone_id: patches, which has its own, got ['max']",
        ),
        (
            {"model": {"backbone_id": "patches", "image_size": 64}, "training": {"grid": {"pooling": [["max"]]}}},
            "training.grid.pooling must be left out with model.backbone_id: patches, which has its own pooling",
        ),
        (
            {"model": {"backbone_id": "x", "pooling": ["attentive"]}},
            "model.pooling: [attentive] learns on pixels: it needs training.feature_cache: false or ",
        ),
        (
            {"training": {"grid": {"pooling": [["cls"], ["attentive"]]}}},
            "training.grid.pooling must not name attentive, which learns on pixels, got [['cls'], ['attentive']]",
        ),
        (
            {"training": {"grid": {"pooling": [["cls"], ["mean"], ["cls"]]}}},
            "training.grid.pooling must name each value once, got [['cls'], ['mean'], ['cls']]",
        ),
        (
            {"training": {"grid": {"pooling": [["max", "max"]]}}},
            "training.grid.pooling.0 must name poolings, each once, or attentive alone, got ['max', 'max']",
        ),
        (
            {"training": {"grid": {"pooling": [["cls"], ["max"]], "lr": [0.1 * n for n in range(1, 52)]}}},
            "training.grid may have at most 100 combinations, got 102",
        ),
        ({"training": {"fine_tune": {"layer_decay": 0}}}, "training.fine_tune.layer_decay: input should be greater"),
    ],
)
def test_what_is_of_another_type_or_breaks_a_grammar_is_one_short_line(sections: dict, message: str) -> None:
    refused = refusal({**MINIMAL, **sections})
    assert message in refused and len(refused) <= 1000 and "\n" not in refused


def test_of_many_mistakes_the_first_are_named_and_the_others_counted() -> None:
    message = refusal({**MINIMAL, "split": {f"key{i}": i for i in range(40)}})
    assert message.startswith("config: 40 mistakes: split.key0 is not") and message.endswith("; and 32 more")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scrc.alpha", "--set takes section.key=value, got 'scrc.alpha'"),
        ("=1", "--set takes section.key=value, got '=1'"),
        ("a..b=1", "--set takes section.key=value, got 'a..b=1'"),
        ("__class__=x", "__class__ is not a known key"),
        ("training=5", "training must be a section with keys below it, got 5"),
        ("data.data_root.x=1", "--set data.data_root.x: data_root is a value, not a section"),
        ("data.class_names.0=x", "data.class_names: input should be a valid list"),
        ("split={seed: 1, seed: 2}", "the key seed stands in line 1 and again in line 1"),
        ("split.seed=[", "--set split.seed: '[' is not YAML: line 1, column 2"),
        ("split.seed=" + "9" * 5000, "split.seed: unable to parse input string as an integer"),
        ("x" * 5000, "--set takes section.key=value, got 'xxx"),
    ],
)
def test_an_override_that_says_nothing_is_one_line(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(ConfigError) as caught:
        config.load(path, [override])
    assert message in str(caught.value) and len(str(caught.value)) < 400


def test_an_override_goes_below_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "training": None}))
    assert config.load(path, ["training.epochs=3"]).training.epochs == 3


def test_a_config_that_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "no regular file"),
        (tmp_path, "no regular file"),
        ("/dev/zero", "no regular file"),
        ("a\0b", "cannot read config a\\\\x00b"),
        ("x" * 5000, "File name too long"),
        (tmp_path / "absent" / "c.yaml", "No such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            config.load(path)


def test_what_is_printed_loads_again_to_the_same_config(tmp_path: Path) -> None:
    path, again = tmp_path / "c.yaml", tmp_path / "again.yaml"
    path.write_text(VALID)
    for override in ("split.seed=9007199254740992", "model.backbone_revision='0123'", "model.backbone_revision=no",
                     "model.backbone_revision=2026-01-01", "training.optimizer.lr=1e-7", "scrc.alpha=0.1"):  # fmt: skip
        parsed = config.load(path, [override])
        again.write_text(yaml.safe_dump(parsed.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        assert config.load(again) == parsed
