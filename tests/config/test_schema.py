"""The JSON Schema as an editor takes it: YAML 1.2, in which 1e-3 is a number."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from natix_lib.config.explain import entries
from natix_lib.config.schema import schema

CONFIGS = sorted((Path(__file__).parent.parent.parent / "pipelines" / "configs").glob("*.yaml"))


class EditorLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = dict(yaml.SafeLoader.yaml_implicit_resolvers)  # noqa: RUF012


EditorLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def as_an_editor_reads(text: str) -> Any:
    return yaml.load(text, EditorLoader)


def breaches(document: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema())
    return [error.json_path for error in validator.iter_errors(document)]


def test_the_schema_is_one_of_draft_2020_12() -> None:
    document = schema()
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_we_ship_fit_the_schema(path: Path) -> None:
    assert breaches(as_an_editor_reads(path.read_text())) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("scrc: {alpha: 2}", "$.scrc.alpha"),
        ("scrc: {alfa: 0.1}", "$.scrc"),
        ("training: {optimizer: {lr: 0}}", "$.training.optimizer.lr"),
        ("training: {epochs: many}", "$.training.epochs"),
        ("sweep: {objective: f1}", "$.sweep.objective"),
        ("explora: {mask_ratio: [0.1]}", "$.explora.mask_ratio"),
        ("hardware: {tolerations: [{effect: Never}]}", "$.hardware.tolerations[0].effect"),
        ("data: {}", "$.data"),
    ],
)
def test_what_breaks_a_range_is_seen_in_the_editor(change: str, place: str) -> None:
    document = as_an_editor_reads(CONFIGS[0].read_text()) | as_an_editor_reads(change)
    assert breaches(document) == [place]


def test_every_key_of_the_schema_is_described() -> None:
    document = schema()
    described = {"": document, **document["$defs"]}
    texts = [key.get("description") for section in described.values() for key in section["properties"].values()
             if "$ref" not in key]  # fmt: skip
    assert all(texts) and all(section["description"] for section in described.values())
    keys = {
        entry.path
        for entry in entries()
        if not entry.is_section and not entry.path.startswith("hardware.gpu_tolerations[]")
    }
    assert len(texts) == len(keys)
    lr = document["$defs"]["Optimizer"]["properties"]["lr"]
    assert (
        lr["description"].startswith("Highest learning rate")
        and "Source of the default, convention:" in lr["description"]
    )
    assert document["$defs"]["Explora"]["properties"]["steps"]["description"].endswith(
        "Unit: optimiser steps. Source of the default, paper: ExPLoRA, arXiv 2406.10973."
    )
