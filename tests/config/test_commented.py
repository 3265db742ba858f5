from pathlib import Path

import pytest
import yaml

from natix_lib import config
from natix_lib.config.commented import commented
from natix_lib.config.explain import entries
from tests.config_texts import VALID

OVERRIDES = [
    "split.seed=9007199254740992",
    "model.backbone_revision='0123'",
    "model.backbone_revision=no",
    "model.backbone_revision=2026-01-01",
    "model.backbone_revision='# no comment'",
    f"model.backbone_revision='{'long text ' * 30}'",
    "training.optimizer.lr=1e-7",
    "data.data_root=straße ☃/\u2028x",
    "data.class_names=['- a', 'b: c', '']",
    "hardware.tolerations=[{key: a, operator: Equal, value: b}, {}]",
    "hardware.node_selector={a: '', b/c: d}",
]


@pytest.mark.parametrize("any_character", [True, False])
@pytest.mark.parametrize("override", OVERRIDES)
def test_a_commented_config_loads_again_to_the_same(tmp_path: Path, override: str, any_character: bool) -> None:
    path, again = tmp_path / "c.yaml", tmp_path / "again.yaml"
    path.write_text(VALID)
    overrides = (
        [override, "model.num_classes=null", "data.positive_classes=[]"] if "class_names" in override else [override]
    )
    settings = config.load(path, overrides)
    text = commented(settings, any_character)
    assert any_character or text.isascii()
    again.write_text(text, encoding="utf-8")
    assert config.load(again) == settings
    assert yaml.safe_load(text) == settings.model_dump(mode="json")


def test_every_key_has_its_comment_above_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(VALID)
    lines = commented(config.load(path), True).splitlines()
    assert all(len(line) <= 100 for line in lines if "#" in line)
    for entry in entries():
        if "[]" in entry.path:
            continue
        indent = "  " * entry.path.count(".")
        name = entry.path.rpartition(".")[2]
        first = f"{indent}# {entry.meaning.removesuffix('.')[:20]}"
        position = next(i for i, line in enumerate(lines) if line.startswith(first))
        while lines[position].startswith(f"{indent}#"):
            position += 1
        assert lines[position].startswith(f"{indent}{name}:"), entry.path
        lines = lines[position:]
    assert "  # Rank of the LoRA matrices (whole number > 0, dimensions)." in commented(config.load(path), True)
