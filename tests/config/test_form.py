from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.config.explain import entries
from natix_lib.config.form import FORM, changes, descriptions, form, sections
from natix_lib.errors import ConfigError
from natix_lib.steps import check

CONFIGS = sorted(  # the demo's is a template without data
    path
    for path in (Path(__file__).parent.parent.parent / "pipelines" / "configs").glob("*.yaml")
    if path.name != "demo.yaml"
)
DEFAULT = next(path for path in CONFIGS if path.name == "default.yaml")


def of(*overrides: str) -> dict[str, Any]:
    return form(config.load(DEFAULT, overrides))


def parsed(compiled: dict[str, Any], **sent: Any) -> config.Config:
    """The config of a run of a pipeline that was compiled so, to which this was sent."""
    return config.parse(config.Config, sections({**compiled, **sent}, compiled))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_form_gives_the_config_back_that_it_was_made_of(path: Path) -> None:
    for overrides in ((), ("training.seed=5",), ("split.seed=3", "explora.seed=3", "evaluate.seed=4", "scrc.alpha=.2")):
        made = config.load(path, overrides)
        again = parsed(form(made))
        assert again.model_copy(update={"hardware": made.hardware}) == made
        assert again.hardware.num_gpus == made.hardware.num_gpus


def test_every_key_of_the_form_is_one_of_the_config_and_stands_in_no_section() -> None:
    known = {entry.path for entry in entries()}
    for name, keys in FORM.items():
        assert set(keys) <= known
        for key in keys:
            section, *path = key.split(".")
            values = of().get(section, {})
            for part in path[:-1]:
                values = values[part]
            assert path[-1] not in values, name


def test_the_seed_of_a_run_is_that_of_every_section_that_names_none() -> None:
    seeded = sections({**of(), "seed": "9"}, of())
    assert {name: values["seed"] for name, values in seeded.items() if "seed" in values} == dict.fromkeys(
        ("split", "explora", "training", "evaluate"), "9"
    )
    apart = of("training.seed=5")
    assert apart["seed"] == "0" and apart["training"]["seed"] == 5
    assert sections({**apart, "seed": "9"}, apart)["training"]["seed"] == 5


OTHER = (  # than the library's defaults
    "scrc.on_infeasible=fail", "scrc.alpha=0.2", "training.optimizer.weight_decay=0.3",
    "data.class_names=[None, Roadwork]", "data.columns.image=file", "data.class_aliases={roadwork: Roadwork}",
)  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "overrides"),
    [
        ({"scrc": {"on_infeasible": "abstain"}}, ["scrc.on_infeasible=abstain"]),
        ({"scrc": {"alpha": 0.1}}, ["scrc.alpha=0.1"]),
        ({"training": {"optimizer": {"weight_decay": 0.1}}}, ["training.optimizer.weight_decay=0.1"]),
        ({"training": {"optimizer": {"lr": 0.1}}}, ["training.optimizer.lr=0.1"]),
        ({"data": {"columns": {"label": "class"}}}, ["data.columns.label=class"]),
        (
            {"data": {"class_aliases": {"RW": "Roadwork"}}},
            ["data.class_aliases={RW: Roadwork}"],
        ),  # a value, not a section
        ({"data": {"class_aliases": {}}, "model": {"num_classes": 0}}, ["data.class_aliases={}"]),
        ({"split": {}, "alpha": 0.02}, ["scrc.alpha=0.02"]),
    ],
)
def test_a_section_given_in_part_is_the_compiled_one_with_these_keys_set(
    sent: dict[str, Any], overrides: list[str]
) -> None:
    compiled, changed = of(*OTHER), config.load(DEFAULT, [*OTHER, *overrides])
    assert parsed(compiled, **sent) == changed != parsed(compiled)
    assert compiled == of(*OTHER)  # nothing is written into it


def test_a_section_given_whole_is_the_same_as_its_changed_keys_alone() -> None:
    compiled = of(*OTHER)
    whole = {**compiled["scrc"], "on_infeasible": "fail"}
    assert parsed(compiled, scrc=whole) == parsed(compiled, scrc={"on_infeasible": "fail"})


def test_a_section_that_contradicts_a_changed_parameter_is_an_error_of_one_line_that_names_both() -> None:
    contradicting = {"alpha": 0.1, "scrc": {"alpha": 0.02}, "epochs": 7, "training": {"epochs": 3}}
    with pytest.raises(ConfigError) as refused:
        parsed(of(), **contradicting)
    assert str(refused.value) == (
        "config: the parameter alpha is 0.1 but scrc.alpha is 0.02; the parameter epochs is 7 but training.epochs "
        "is 3: change the parameter and leave the key out of its section"
    )
    assert parsed(of(), **{**contradicting, "scrc": {"alpha": 0.1}, "training": {"epochs": 7.0}}).scrc.alpha == 0.1


def test_what_a_run_changes_is_told_key_by_key() -> None:
    compiled = of()
    sent = {**compiled, "alpha": 0.02, "data": {"columns": {"lat": "y"}, "class_aliases": {"RW": "Roadwork"}}}
    sent["split"] = {"seed": "0"}  # the same seed, as a text
    told = set(changes(parsed(compiled), parsed(compiled, **sent)))
    assert told == {
        "data.class_aliases.RW 'Roadwork' in place of nothing",
        "data.columns.lat 'y' in place of 'lat'",
        "scrc.alpha 0.02 in place of 0.05",
    }
    assert not list(changes(parsed(compiled), parsed(compiled)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alpha": 2.0}, "config: scrc.alpha: input should be less than 1, got 2.0"),
        ({"num_gpus": "two"}, "config: hardware.num_gpus: input should be a valid integer.*got 'two'"),
        ({"policy": ""}, "config: export.policy must name the one policy that ships, sweep or calibrate, got ''"),
        ({"training": 3}, "config: training must be a section with keys below it, got 3"),
        ({"training": {"optimizer": "adam"}}, "config: training.optimizer must be a section with keys.*got 'adam'"),
        ({"seed": "-1"}, "config: 4 mistakes: split.seed: "),
    ],
)
def test_what_a_person_types_wrong_into_the_form_is_told_by_check(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        check.run({**of(), **changed}, of())


def test_a_parameter_says_in_one_line_what_it_means_what_it_takes_and_which_key_it_is() -> None:
    texts = descriptions()
    assert set(texts) == set(of()) and not any("\n" in text for text in texts.values())
    assert texts["lr"].endswith("Number > 0. Config: training.optimizer.lr.")
    assert texts["scrc"].endswith("Given apart: alpha, delta.")
