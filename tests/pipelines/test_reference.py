from pathlib import Path

import jsonschema
import pytest

from natix_lib import config
from natix_lib.config.step_settings import SETTINGS, step_settings
from natix_lib.contracts import STEPS, TASKS
from natix_pipelines.reference import component_spec, page, settings_of, settings_schema

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted(  # the demo's is a template without data
    path for path in (ROOT / "pipelines" / "configs").glob("*.yaml") if path.name != "demo.yaml"
)


def test_the_page_of_the_components_is_what_they_say() -> None:
    assert (ROOT / "docs" / "components.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_input_output_and_key_is_a_row_with_a_text() -> None:
    rows = [[cell.strip() for cell in line.split(" | ")] for line in page().splitlines() if line.startswith("| `")]
    assert all(len(row[-1].removesuffix("|").strip()) > 5 for row in rows)
    expected = sum(
        len(component_spec(step).inputs) + len(component_spec(step).outputs) + len(settings_of(step).model_fields)
        for step in TASKS
    )
    assert len(rows) == expected


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_check_gives_a_component_fits_the_schema_of_its_settings(path: Path, step: str) -> None:
    document = settings_schema(step)
    jsonschema.Draft202012Validator.check_schema(document)
    entered = set(component_spec(step).inputs)
    given = {key: value for key, value in step_settings(config.load(path))[step].items() if key not in entered}
    jsonschema.Draft202012Validator(document).validate(given)
    (key, *_) = given
    for wrong in ({**given, "unknown": 1}, {**given, key: []}, {}):
        assert list(jsonschema.Draft202012Validator(document).iter_errors(wrong)), wrong


@pytest.mark.parametrize("step", STEPS)
def test_every_key_of_a_schema_is_described(step: str) -> None:
    document = settings_schema(step)
    sections = [document, *document.get("$defs", {}).values()]
    texts = [key.get("description") for one in sections for key in one["properties"].values() if "$ref" not in key]
    assert all(texts) and all(one["description"] for one in sections)
    assert set(document["properties"]) == set(SETTINGS[step].model_fields) - set(component_spec(step).inputs)
