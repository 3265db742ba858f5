import re

import pytest
import yaml

from natix_lib.config import SECTIONS, Config
from natix_lib.config.explain import entries, explanation, overview
from natix_lib.errors import ConfigError


def test_every_key_is_one_line_with_its_default_and_a_sentence() -> None:
    keys = [entry for entry in entries() if not entry.is_section]
    lines = overview().splitlines()
    assert len(lines) == len(keys) == len({entry.path for entry in keys})
    assert all(line.startswith(entry.path) for line, entry in zip(lines, keys, strict=True))
    assert "scrc.alpha=0.05                                     Bound on the error rate of accepted images." in lines
    assert any(line.startswith("export.policy (required)  ") for line in lines)


def test_the_defaults_that_are_told_are_those_of_the_config() -> None:
    values: dict = {"data": {"data_root": "a"}, "model": {"backbone_id": "a/b"}, "export": {"policy": "sweep"}}
    for entry in entries():
        if entry.default and "[]" not in entry.path:
            section = values
            *above, name = entry.path.split(".")
            for part in above:
                section = section.setdefault(part, {})
            section[name] = yaml.safe_load(entry.default)
    told = Config.model_validate(values)
    bare = {"data": {"data_root": "a"}, "model": {"backbone_id": "a/b"}, "export": {"policy": "sweep"}}
    assert told == Config.model_validate(bare)


def test_one_key_is_explained_whole() -> None:
    assert explanation("explora.steps") == (
        "explora.steps\n"
        "  Length of the adaptation.\n"
        "  allowed: whole number > 0\n"
        "  unit: optimiser steps\n"
        "  default: 6250; paper: ExPLoRA, arXiv 2406.10973"
    )
    assert "required: no default" in explanation("data.data_root")


@pytest.mark.parametrize("path", SECTIONS)
def test_a_section_is_explained_with_its_keys(path: str) -> None:
    head, _, below = explanation(path).partition("\n\n")
    first, *meaning = head.splitlines()
    keys = below.splitlines()
    assert first == path and meaning and all(line.startswith("  ") for line in meaning)
    assert keys and all(re.match(rf"{path}\.[a-z_.\[\]]+(=| \(required\))", line) for line in keys)


def test_keys_of_a_list_of_sections_stand_below_it() -> None:
    assert "hardware.tolerations[].effect=''" in explanation("hardware.tolerations")
    assert explanation("hardware.tolerations.effect").startswith("hardware.tolerations[].effect\n")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("lr", "did you mean explora.lr or training.optimizer.lr or training.grid.lr?"),
        ("training.optimiser.lr", "did you mean explora.lr or training.optimizer.lr or training.grid.lr?"),
        ("training.epoks", "did you mean training.epochs?"),
        ("patiense", "did you mean training.early_stopping.patience?"),
        ("trainin", "did you mean training?"),
        ("", "natix config --explain lists all keys"),
        ("zzz", "natix config --explain lists all keys"),
        ("x" * 5000, "natix config --explain lists all keys"),
    ],
)
def test_a_mistyped_key_is_one_short_line_with_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explanation(path)
    assert str(caught.value).endswith(f" is not a known key, {hint}") and len(str(caught.value)) < 250
