import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.backbones.loading import load_backbone
from natix_lib.contracts import read_manifest
from natix_lib.data.sets import open_set
from natix_lib.errors import ConfigError, ContractError, TrainingError
from natix_lib.explora.gate import LEAST_GROUPS, held_out
from natix_lib.explora.probe import Probe
from natix_lib.explora.run import adapt_backbone
from natix_lib.files import read_json, sha256_file
from natix_lib.steps import adapt_worker
from tests.explora.small import small
from tests.small_run import TRAIN, Chain
from tests.street_sets import ingest_settings, run_step, write_images, write_manifest


def run(chain: Chain, folder: Path, image_size: int = 32, **changes: Any) -> tuple[dict[str, Path], dict[str, float]]:
    settings = {
        "num_workers": 0,
        "image_size": image_size,
        "num_gpus": 1,
        "explora": small(**changes).model_dump(mode="json"),
    }
    paths, metrics = run_step("adapt", settings, folder, chain.paths)
    return {name: Path(path) for name, path in paths.items()}, metrics


@pytest.fixture(scope="module")
def adapted(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, float]]:
    return run(chain, tmp_path_factory.mktemp("adapt") / "always", promote="always")


def test_an_adapted_backbone_has_the_format_of_its_base(chain: Chain, adapted: Any) -> None:
    paths, metrics = adapted
    base = read_manifest(chain.paths["backbone"], "backbone")
    made = read_manifest(paths["adapted_backbone"], "backbone")
    assert set(made) == set(base) | {"adaptation"} and set(made["files"]) == set(base["files"])
    assert made["files"]["config.json"] == base["files"]["config.json"]
    assert made["weights_sha256"] != base["weights_sha256"] == made["adaptation"]["base_sha256"]
    assert made["licence"] == base["licence"]
    before, after = (
        load_backbone(folder).state_dict() for folder in (chain.paths["backbone"], paths["adapted_backbone"])
    )
    assert list(before) == list(after)
    frozen = "embeddings.patch_embeddings.weight"
    assert before[frozen].equal(after[frozen])
    for trained in ("norm.weight", "embeddings.register_tokens"):
        assert not before[trained].equal(after[trained])
    assert metrics["promoted"] == 1.0 and metrics["trained_millions"] > 0


def test_it_tells_where_it_comes_from(chain: Chain, adapted: Any) -> None:
    told = read_manifest(adapted[0]["adapted_backbone"], "backbone")["adaptation"]
    train = open_set(chain.paths["train_set"], "TRAIN")
    held = held_out(train.groups, train.labels, 0.4)
    asked = sum(group in held for group in train.groups)
    assert told["asked"] == {"images": asked, "groups": len(held)} and asked >= len(held) >= LEAST_GROUPS
    assert (told["images"], told["splits_sha256"]) == (len(train) - asked, sha256_file(chain.paths["splits"]))
    metrics = adapted[1]
    assert (metrics["gain"], metrics["gain_low"]) == (told["gain"]["mean"], told["gain"]["low"])
    both = [sum(told["probe"][name].values()) / 2 for name in ("before", "after")]
    assert metrics["gain"] == pytest.approx(both[1] - both[0])
    assert told["settings"]["rank"] == 4 and "embeddings.cls_token" in told["trained"]
    assert set(told["probe"]) == {"before", "after"}


def test_it_adapts_to_images_without_a_label_and_no_other_step_is_given_them(
    chain: Chain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last frame of each drive has no label; a drive that is held out of adaptation is held out with it."""
    seen: list[str] = []

    def noted(backbone: Any, feed: Any, *others: Any) -> Any:
        seen.extend(feed.images.ids)
        last = unlabelled.ids.index(seen[-1])
        assert feed.images.image(len(seen) - 1) == unlabelled.image(last)
        return adapt_backbone(backbone, feed, *others)

    monkeypatch.setattr(adapt_worker, "adapt_backbone", noted)
    root = write_images(tmp_path / "source", groups=24)
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    write_manifest(root, [{**row, "label": "" if number % 3 == 2 else row["label"]} for number, row in enumerate(rows)])
    paths = run_step("ingest", ingest_settings(root, unlabelled="adapt"), tmp_path)[0]
    paths |= run_step("split", {"split": {}}, tmp_path, paths)[0]
    division = read_json(paths["splits"])
    unlabelled = open_set(paths["unlabelled_set"], "UNLABELLED")
    assert unlabelled.ids == division["unlabelled"] == [f"{n[:2]}-2.png" for n in division["roles"]["TRAIN"][::2]]
    assert set(unlabelled.labels) == {-1}
    with pytest.raises(ContractError, match="must be a train_set document, got 'unlabelled_set'"):
        open_set(paths["unlabelled_set"], "TRAIN")
    paths["backbone"] = chain.paths["backbone"]
    made, _ = run(Chain(paths), tmp_path / "adapted", steps=1, promote="always")
    told = read_manifest(made["adapted_backbone"], "backbone")["adaptation"]
    train = open_set(paths["train_set"], "TRAIN")
    held = held_out(train.groups, train.labels, 0.4)
    adapted_to = [
        [name for name, group in zip(each.ids, each.groups, strict=True) if group not in held]
        for each in (train, unlabelled)
    ]
    assert seen == [*adapted_to[0], *adapted_to[1]] and 0 < len(adapted_to[1]) < len(unlabelled)
    assert (told["images"], told["unlabelled"]) == tuple(map(len, adapted_to))
    groups = len(set(train.groups))
    line = f"adapting to {groups - len(held)} of the {groups} groups of TRAIN, the probes ask about {len(held)}; "
    assert line + f"{len(unlabelled)} images have no label" in capfd.readouterr().out
    assert f"labels and {len(adapted_to[1])} that have none" in made["adaptation_report"].read_text()


def test_curve_and_report_are_there(adapted: Any) -> None:
    header, *rows = adapted[0]["adaptation_curve"].read_text().splitlines()
    assert header == "step,lr,momentum,temperature,loss,dino,ibot,koleo" and len(rows) == 4
    report = adapted[0]["adaptation_report"].read_text()
    assert (
        "20 nearest neighbours" in report and report.count("<svg") == 6 and not re.search(r"(src|href)=.http", report)
    )


@pytest.mark.slow
def test_from_scratch_every_weight_is_new(chain: Chain, tmp_path: Path) -> None:
    paths, metrics = run(chain, tmp_path / "scratch", promote="always", from_scratch=True, steps=1, lr=1e-9, seed=1)
    before, after = (
        load_backbone(folder).state_dict() for folder in (chain.paths["backbone"], paths["adapted_backbone"])
    )
    drawn = [name for name, value in before.items() if len(value.unique()) > 1]
    assert "embeddings.patch_embeddings.weight" in drawn
    for name in drawn:
        assert float((before[name] - after[name]).abs().max()) > 1e-3, name
    assert metrics["trained_millions"] == pytest.approx(sum(value.numel() for value in before.values()) / 1e6)


def test_sets_of_two_divisions_are_refused_before_any_work(chain: Chain, tmp_path: Path) -> None:
    other, _ = run_step("split", {"split": {"seed": 5}}, tmp_path, chain.paths)
    paths = {**chain.paths, "unlabelled_set": other["unlabelled_set"]}
    with pytest.raises(ContractError, match=r"splits_sha256 differs: train_set has .*, unlabelled_set has"):
        run(Chain(paths), tmp_path / "adapted")


@pytest.mark.slow
@pytest.mark.parametrize("better", [True, False])
def test_a_backbone_is_promoted_for_a_gain_beyond_noise_and_not_for_one_more_image(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    def answers(*arguments: Any) -> Probe:
        told.append(np.zeros(len(arguments[3]), bool))
        told[-1][: len(told[-1]) if better else 1] = len(told) == 2
        return Probe(told[-1], told[-1])

    told: list[np.ndarray] = []
    monkeypatch.setattr(adapt_worker, "probe", answers)
    paths, metrics = run(chain, tmp_path / "probed")
    assert metrics["gain"] == (1.0 if better else pytest.approx(1 / len(told[0])))
    if better:
        assert metrics["promoted"] == 1.0 and metrics["gain_low"] == metrics["gain_high"] == 1.0
        return
    assert metrics["gain_low"] == 0.0 and metrics["gain_p"] > 0.4
    made, base = (read_manifest(p, "backbone") for p in (paths["adapted_backbone"], chain.paths["backbone"]))
    assert metrics["promoted"] == 0.0 and made["weights_sha256"] == base["weights_sha256"]
    assert (
        not made["adaptation"]["promoted"] and "probes no better beyond noise" in paths["adaptation_report"].read_text()
    )


def test_train_takes_an_adapted_backbone_when_the_config_says_so(chain: Chain, adapted: Any, tmp_path: Path) -> None:
    backbone = str(adapted[0]["adapted_backbone"])
    settings = {**TRAIN, "model": {**TRAIN["model"], "init_from_explora": True}}
    run_step("train", settings, tmp_path, {**chain.paths, "backbone": backbone})
    made = read_manifest(tmp_path / "classifier", "classifier")
    assert made["provenance"]["backbone_sha256"] == read_manifest(backbone, "backbone")["weights_sha256"]


def test_train_refuses_a_backbone_that_has_seen_the_images_of_another_division(
    chain: Chain, adapted: Any, tmp_path: Path
) -> None:
    other, _ = run_step("split", {"split": {"seed": 5}}, tmp_path, chain.paths)
    settings = {**TRAIN, "model": {**TRAIN["model"], "init_from_explora": True}}
    paths = {**chain.paths, **other, "backbone": adapted[0]["adapted_backbone"]}
    with pytest.raises(ContractError, match=r"splits_sha256 differs: backbone has .*, train_set has"):
        run_step("train", settings, tmp_path / "trained", paths)


def test_train_refuses_the_other_kind_of_backbone_before_any_work(chain: Chain, adapted: Any, tmp_path: Path) -> None:
    settings = {**TRAIN, "model": {**TRAIN["model"], "init_from_explora": True}}
    with pytest.raises(ConfigError, match="init_from_explora is true but the backbone has not been through adapt"):
        run_step("train", settings, tmp_path, chain.paths)
    with pytest.raises(ConfigError, match="init_from_explora is false but the backbone is one that adapt has made"):
        run_step("train", TRAIN, tmp_path, {**chain.paths, "backbone": adapted[0]["adapted_backbone"]})


def test_what_does_not_fit_is_refused_before_any_work(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size must be a multiple of the backbone's patch 8, got 30"):
        run(chain, tmp_path / "size", image_size=30)
    with pytest.raises(ConfigError, match="explora.prototypes 99999 need at least 49 images at once"):
        run(chain, tmp_path / "prototypes", prototypes=99999)
    with pytest.raises(
        ConfigError,
        match=r"promote better needs at least 5 groups to ask about, explora.probe_share gives 1 of the \d+ groups",
    ):
        run(chain, tmp_path / "groups", probe_share=0.01)
    with pytest.raises(ConfigError, match="unfrozen_blocks must be in"):
        run(chain, tmp_path / "blocks", unfrozen_blocks=9)


def test_a_loss_that_is_not_finite_leaves_no_backbone(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at step 1: lower explora.lr"):
        run(chain, tmp_path / "nan", lr=1e30)
    assert not (tmp_path / "nan").exists()
