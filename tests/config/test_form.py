from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.config.explain import entries
from natix_lib.config.form import FORM, descriptions, form, sections
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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_form_gives_the_config_back_that_it_was_made_of(path: Path) -> None:
    for overrides in ((), ("training.seed=5",), ("split.seed=3", "explora.seed=3", "evaluate.seed=4", "scrc.alpha=.2")):
        made = config.load(path, overrides)
        again = config.parse(config.Config, sections(form(made)))
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
    seeded = sections({**of(), "seed": "9"})
    assert {name: values["seed"] for name, values in seeded.items() if "seed" in values} == dict.fromkeys(
        ("split", "explora", "training", "evaluate"), "9"
    )
    assert of("training.seed=5")["seed"] == "0" and of("training.seed=5")["training"]["seed"] == 5
    assert sections({**of("training.seed=5"), "seed": "9"})["training"]["seed"] == 5


def test_a_section_that_contradicts_a_parameter_is_an_error_of_one_line_that_names_both() -> None:
    parameters = of()
    parameters["scrc"]["alpha"] = 0.02
    parameters["training"] = {"epochs": 3}
    with pytest.raises(ConfigError) as refused:
        check.run(parameters, False)
    assert str(refused.value) == (
        "config: the parameter alpha is 0.05 but scrc.alpha is 0.02; the parameter epochs is 50 but training.epochs "
        "is 3: change the parameter and leave the key out of its section"
    )
    parameters["scrc"]["alpha"], parameters["training"]["epochs"] = 0.05, 50
    assert dict(zip(("ingest", "split"), check.run(parameters, False), strict=False))["split"] == {
        "split": config.load(DEFAULT).split.model_dump(mode="json")
    }


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
        check.run({**of(), **changed}, False)


def test_a_parameter_says_in_one_line_what_it_means_what_it_takes_and_which_key_it_is() -> None:
    texts = descriptions()
    assert set(texts) == set(of()) and not any("\n" in text for text in texts.values())
    assert texts["lr"].endswith("Number > 0. Config: training.optimizer.lr.")
    assert texts["scrc"].endswith("Given apart: alpha, delta.")
