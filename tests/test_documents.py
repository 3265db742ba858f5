import json
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.contracts import ARTIFACTS, read_document
from natix_lib.data.index import read_index
from natix_lib.documents import MAX_TOLERANCE, MODELS, check_shape
from natix_lib.errors import ConfigError, ContractError
from natix_lib.files import read_json
from tests.damage import edits
from tests.small_run import Chain

ARTIFACTS_OF_A_RUN = [
    name for name in MODELS if name not in ("golden", "drift", "part")
]  # a part: tests/data/test_parts.py


def path_of(chain: Chain, artifact: str) -> Path:
    inside = {"golden": "golden/golden.json", "drift": "drift.json"}
    if artifact in inside:
        return Path(chain.paths["bundle"]) / inside[artifact]
    return Path(chain.paths[artifact]) / ARTIFACTS[artifact].manifest


def document_of(chain: Chain, artifact: str) -> dict[str, Any]:
    """The document of an artifact; that of the index lies in its metadata."""
    return read_index(chain.paths["index"]).document if artifact == "index" else read_json(path_of(chain, artifact))


def needed(model: Any, document: Any, path: str = "") -> set[str]:
    """The paths of the keys that a document of this shape must have."""
    names = set()
    for name, field in model.model_fields.items():
        if field.is_required():
            names.add(f"{path}{name}")
            if hasattr(field.annotation, "model_fields"):
                names |= needed(field.annotation, document[name], f"{path}{name}.")
    return names


@pytest.mark.parametrize("artifact", [*ARTIFACTS_OF_A_RUN, "golden", "drift"])
def test_what_a_run_writes_has_its_shape_and_every_key_of_it_is_needed(chain: Chain, artifact: str) -> None:
    document = document_of(chain, artifact)
    check_shape(document, artifact, "x.json")
    keys = needed(MODELS[artifact], document)
    refused = set()
    for name, edited in edits(document):
        try:
            check_shape(edited, artifact, "x.json")
        except ContractError as error:
            assert str(error).startswith("x.json: ") and len(str(error)) < 900
            refused.add(name)
    assert {f"{key} deleted" for key in keys} <= refused


@pytest.mark.parametrize("artifact", ARTIFACTS_OF_A_RUN)
@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"artifact": []}', '{"artifact": "%s", "schema_version": 2}'])
def test_a_file_of_another_shape_is_one_line(tmp_path: Path, artifact: str, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text % artifact if "%" in text else text)
    with pytest.raises(ContractError, match=r"^\S*x.json") as refusal:
        read_document(path, artifact)
    assert len(str(refusal.value)) < len(str(path)) + 300


def test_a_refusal_names_file_key_rule_and_value(chain: Chain) -> None:
    document = read_json(path_of(chain, "train_set"))
    for change, message in (
        ({"class_names": ["a", 7]}, "d.json: class_names.1 must be a valid string, got 7"),
        ({"rows": True}, "d.json: rows must be a valid integer, got True"),
        ({"resize_shorter_side": 0}, "d.json: resize_shorter_side must be greater than or equal to 1, got 0"),
        ({"positive_classes": ["Cone"]}, "d.json: positive_classes must be among class_names, got 'Cone'"),
        (
            {"files": {"../a": {"sha256": "0" * 64, "bytes": 1}}},
            "d.json: files.../a must be the relative name of a file",
        ),
    ):
        with pytest.raises(ContractError) as refusal:
            check_shape({**document, **change}, "train_set", "d.json")
        assert str(refusal.value).startswith(message)


def test_text_that_would_steer_a_terminal_or_fill_it_is_not_repeated(chain: Chain) -> None:
    document = json.loads(path_of(chain, "bundle").read_text())
    with pytest.raises(ContractError) as refusal:
        check_shape({**document, "\x1b[2J": 1, "x" * 10_000: 1, "artifact": ["y"] * 10_000}, "bundle", "b.json")
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 300


def test_the_config_allows_no_tolerance_that_a_bundle_may_not_have() -> None:
    assert config.parse(config.Export, {"policy": "sweep", "parity_tolerance": MAX_TOLERANCE})
    with pytest.raises(ConfigError, match=r"parity_tolerance: .*less than or equal to 0.01, got 0.011"):
        config.parse(config.Export, {"policy": "sweep", "parity_tolerance": 0.011})
