"""What describes a backbone's source, without the hub; see tests/steps/test_fetch.py for the hub itself."""

import json
import os
from pathlib import Path

import pytest

from natix_lib.backbones.sources import copy_backbone, normalisation
from natix_lib.errors import ConfigError, ContractError, StorageError


def copied(source: object, folder: Path) -> None:
    copy_backbone(str(source), "main", folder / "out", folder / "scratch")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"image_mean": "x"}, "image_mean must be three numbers, got 'x'"),
        ({"image_mean": None}, "image_mean must be three numbers, got None"),
        ({"image_std": [1, 1]}, "image_std must be three numbers, got \\[1, 1\\]"),
        ({"image_std": [True, 1, 1]}, "image_std must be three numbers"),
        ({"image_std": [10**400, 1, 1]}, "is not JSON: the number .* is too large"),
        ({"image_std": [0, 1, 1]}, "image_std must be above 0, got \\[0, 1, 1\\]"),
        ([], "must hold a JSON object, got list"),
    ],
)
def test_a_normalisation_that_is_none_is_one_line(tmp_path: Path, document: object, message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    with pytest.raises(ContractError, match=message):
        normalisation(tmp_path)


@pytest.mark.parametrize("source", ["owner/a b", "a..b/c", "owner/name.git"])
def test_what_cannot_be_a_hub_id_is_not_asked_for(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="is no folder here and cannot be a hub id"):
        copied(source, tmp_path)


@pytest.mark.parametrize("token", ["hf_tök", "two words", "hf_\udcff"])
def test_a_token_that_is_none_is_one_line_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match=r"^HF_TOKEN must hold a token, one word of ASCII, and holds something else$"):
        copied("owner/vit", tmp_path)


@pytest.mark.parametrize("make", ["dangling", "loop", "pipe"])
def test_what_stands_for_a_file_and_is_none_is_one_line(tmp_path: Path, tiny_backbone: Path, make: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_backbone.iterdir():
        (source / path.name).symlink_to(path)  # links to files are followed
    copied(source, tmp_path)
    if make == "pipe":
        os.mkfifo(source / "NOTICE")
    else:
        (source / "NOTICE").symlink_to("absent" if make == "dangling" else "NOTICE")
    with pytest.raises(StorageError, match="NOTICE cannot be copied: "):
        copied(source, tmp_path)
