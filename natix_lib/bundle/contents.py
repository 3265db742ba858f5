"""What a bundle holds, and that its parts say the same: everything that can be checked without running the model.

bundle.json names the hash of every file, and of itself (`digest`), so a change by accident or by hand is seen. A hash
in the same folder proves integrity and not origin: whoever can write the folder can write all of it again, hashes
included, and no check in here can tell. What `evaluate` measured is named by `bundle_sha256` in evaluation.json,
which is kept elsewhere: compare it where it matters.

What decides is therefore also written in two files that must agree, so that one file exchanged or edited with its
hashes made anew is told as well: class names in bundle.json, the policy and splits.json; positive classes in
bundle.json and the policy; the transform in bundle.json and golden.json; the weights' hash in bundle.json, the policy
and golden.json.

A file that the table does not name is refused, a second policy above all, because nobody can say what it is for. Names
that begin with a dot, and the droppings of desktops, are passed over: file managers and mounted volumes make them, and
nothing in a bundle is read by such a name.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from natix_lib.contracts import (
    ARTIFACTS,
    BACKBONE_CONFIG,
    POLICY_OF,
    WEIGHTS,
    read_document,
    read_hashed_manifest,
    require_same,
)
from natix_lib.decisions.promise import is_certified
from natix_lib.documents import check_shape
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, read_json

MODEL, GOLDEN, DRIFT = "model.onnx", "golden/golden.json", "drift.json"
BUNDLE, SPLITS = ARTIFACTS["bundle"].manifest, ARTIFACTS["splits"].file
DESKTOP_FILES = ("Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Documents:
    """The documents of a bundle.

    Attributes:
        manifest: bundle.json.
        policy: The policy that it ships.
        splits: splits.json.
        sha256: Of the file bundle.json; "" where it is still to be written.
        drift: drift.json; None in bundles of natix before it had it.
    """

    manifest: JsonDict
    policy: JsonDict
    splits: JsonDict
    sha256: str = ""
    drift: JsonDict | None = None


def read_bundle(folder: str | Path) -> Documents:
    """Read a bundle's documents and check them, every file that bundle.json names, and that they belong together.

    Raises:
        ContractError: If a part is missing, malformed, changed, too much, or contradicts another.
    """
    root = Path(folder)
    manifest, sha256 = read_hashed_manifest(root, "bundle")
    _require_files(root, manifest)
    here, policy_file = BUNDLE, manifest["policy"]["file"]
    policy = read_document(root / policy_file, POLICY_OF[manifest["policy"]["step"]])
    splits = read_document(root / SPLITS, "splits")
    require_same("policy.certified", manifest["policy"]["certified"], here, is_certified(policy), policy_file)
    hashes = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    require_same("policy.sha256", manifest["policy"]["sha256"], here, hashes[policy_file], policy_file)
    require_same("model.sha256", manifest["model"]["sha256"], here, hashes[WEIGHTS], WEIGHTS)
    require_same("splits_sha256", manifest["provenance"]["splits_sha256"], here, hashes[SPLITS], SPLITS)
    require_same("model_sha256", manifest["provenance"]["model_sha256"], here, hashes[WEIGHTS], WEIGHTS)
    for key in ("class_names", "positive_classes"):
        require_same(key, manifest[key], here, policy[key], policy_file)
    require_same("class_names", manifest["class_names"], here, splits["class_names"], SPLITS)
    origin = policy.get("provenance", {})
    for key in ("model_sha256", "logits_sha256", "splits_sha256", "dataset_fingerprint"):
        require_same(key, manifest["provenance"][key], here, origin.get(key), policy_file)
    fingerprint = manifest["provenance"]["dataset_fingerprint"]
    require_same("dataset_fingerprint", fingerprint, here, splits["dataset_fingerprint"], SPLITS)
    return Documents(manifest, policy, splits, sha256, _read_drift(root, manifest))


def read_golden(folder: Path, manifest: JsonDict) -> tuple[list[Path], NDArray[np.float64]]:
    """The golden images of a bundle and the logits, float64 (n, C), that they must give.

    Raises:
        ContractError: If golden.json is malformed, of another model or transform, or names a file that bundle.json
            does not.
    """
    path = folder / GOLDEN
    golden = read_json(path)
    check_shape(golden, "golden", path)
    require_same("model_sha256", manifest["model"]["sha256"], BUNDLE, golden["model_sha256"], GOLDEN)
    require_same("transform", manifest["transform"], BUNDLE, golden["transform"], GOLDEN)
    unnamed = [name for name in golden["images"] if f"golden/{name}" not in manifest["files"]]
    if unnamed:
        raise ContractError(f"{path} names the image {unnamed[0]} that {BUNDLE} does not")
    rows, classes = len(golden["images"]), len(manifest["class_names"])
    if [len(row) for row in golden["logits"]] != [classes] * rows:
        raise ContractError(f"{path}: logits must be {rows} rows, one an image, of {classes} numbers, one a class")
    return [path.parent / name for name in golden["images"]], np.asarray(golden["logits"], dtype=np.float64)


def _read_drift(root: Path, manifest: JsonDict) -> JsonDict | None:
    if DRIFT not in manifest["files"]:
        return None
    path = root / DRIFT
    drift = read_json(path)
    check_shape(drift, "drift", path)
    for key in ("model_sha256", "logits_sha256"):
        require_same(key, manifest["provenance"][key], BUNDLE, drift[key], DRIFT)
    if len(drift["classes"]) != len(manifest["class_names"]):
        raise ContractError(f"{path}: classes must be {len(manifest['class_names'])}, got {len(drift['classes'])}")
    return drift


def _require_files(root: Path, manifest: JsonDict) -> None:
    """Every part must be in the table of files, and nothing else in the folder."""
    policy = manifest["policy"]
    policy_file = ARTIFACTS[POLICY_OF[policy["step"]]].file
    if policy["file"] != policy_file:
        raise ContractError(
            f"{root / BUNDLE}: policy.file of step {policy['step']} must be {policy_file}, got {policy['file']!r}"
        )
    named = manifest["files"]
    for name in (MODEL, WEIGHTS, BACKBONE_CONFIG, policy_file, SPLITS, GOLDEN, *manifest["licence"]["files"]):
        if name not in named:
            raise ContractError(f"{root / BUNDLE}: files must name {name}, a bundle needs it")
    for artifact in POLICY_OF.values():
        other = ARTIFACTS[artifact].file
        if other != policy_file and (other in named or (root / other).exists()):
            raise ContractError(f"bundle {root} must hold exactly one policy, got {policy_file} and {other}")
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts) or path.name in DESKTOP_FILES
        if name not in named and name != BUNDLE and not hidden and not (path.is_dir() and not path.is_symlink()):
            raise ContractError(f"bundle {root} holds {name}, which {BUNDLE} does not name: take it away")
