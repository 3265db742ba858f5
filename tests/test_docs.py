"""Configs that the documents show are read by natix as they stand there."""

import re
from pathlib import Path

import pytest

from natix_lib import config
from natix_lib.strict_yaml import read_yaml
from tests.config.test_load import with_values

ROOT = Path(__file__).parent.parent
SHOWN = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"^```ya?ml\n(.*?)^```$", path.read_text(), re.M | re.S), 1)
    if not re.search(r"^kind:", block, re.M)  # Kubernetes reads it
]


def test_the_documents_show_configs() -> None:
    assert {"README.md-1", "training.md-1", "training.md-2", "deploy.md-1"} <= {shown.id for shown in SHOWN}


@pytest.mark.parametrize("text", SHOWN)
def test_sections_that_a_document_shows_are_parts_of_a_config(text: str) -> None:
    assert config.parse(config.Config, with_values(**read_yaml(text, "the block")))
