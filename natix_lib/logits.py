"""Logits and labels of a split role on disk: safetensors whose header says where they come from.

The file is written here rather than by the safetensors package because that writes the header's entries in an order
that changes from process to process, and equal content must have equal hashes; it is read by the package. KFP names
files without a suffix, so a `.pt` of the first trainer is told by its zip magic; it is read with
`weights_only=True` and has no provenance.
"""

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from natix_lib.contracts import SCHEMA_VERSION, VAL_CALIB, require_same
from natix_lib.decisions.score import check_labels, check_logits
from natix_lib.errors import CalibrationError, ContractError
from natix_lib.files import parse_json, sha256_bytes, write_bytes

LOGITS, LABELS = "val_calib_logits", "val_calib_labels"
SHARED = ("model_sha256", "splits_sha256", "dataset_fingerprint", "ids_sha256", "class_names", "role")


@dataclass(frozen=True)
class LogitsFile:
    """Logits float32 (n, C), the header that says where they come from, empty for a `.pt`, and the file's SHA-256."""

    values: NDArray[np.float32]
    header: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class LabelsFile:
    """Labels int64 (n,), group number of each image int64 (n,) or None, the header, and the file's SHA-256."""

    values: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    header: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class CalibrationSet:
    """Logits and labels that belong together.

    Attributes:
        logits: Finite logits of each image, float32 (n, C).
        labels: Class of each image, int64 (n,), in 0..C-1.
        groups: Group number of each image, int64 (n,); None when unknown.
        class_names: Names of the C classes, in order of the logits' columns.
        positive_classes: Positive classes of the binary score; may be empty.
        header: Where the files come from, by name; empty for `.pt` files.
        logits_sha256: SHA-256 of the logits' file.
        labels_sha256: SHA-256 of the labels' file.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    class_names: list[str]
    positive_classes: list[str]
    header: dict[str, str]
    logits_sha256: str
    labels_sha256: str


def write_logits(path: str | Path, values: NDArray[np.float32], header: dict[str, str]) -> None:
    """Write logits (n, C) with their header, whole or not at all; equal input gives equal bytes."""
    _write(path, {"logits": np.asarray(values, dtype=np.float32)}, {**header, "artifact": LOGITS})


def write_labels(
    path: str | Path, labels: NDArray[np.int64], groups: NDArray[np.int64], header: dict[str, str]
) -> None:
    """Write labels and group numbers, each (n,), with their header."""
    arrays = {"labels": np.asarray(labels, dtype=np.int64), "group": np.asarray(groups, dtype=np.int64)}
    _write(path, arrays, {**header, "artifact": LABELS})


def read_logits(path: str | Path) -> LogitsFile:
    """Read logits.

    Raises:
        ContractError: If the file is neither safetensors nor a plain `.pt` tensor, or of another artifact.
    """
    content = _read(path, "logits", LOGITS)
    return LogitsFile(content.arrays["logits"].astype(np.float32), content.header, content.sha256)


def read_labels(path: str | Path) -> LabelsFile:
    """Read labels and groups; raises as `read_logits`."""
    content = _read(path, "labels", LABELS)
    for name, values in content.arrays.items():
        if values.dtype.kind not in "iu":
            raise ContractError(f"{path}: {name} must be whole numbers, got {values.dtype}")
    labels, groups = content.arrays["labels"].astype(np.int64), content.arrays.get("group")
    return LabelsFile(labels, groups, content.header, content.sha256)


def read_pair(logits_path: str | Path, labels_path: str | Path) -> CalibrationSet:
    """Read logits and labels of VAL_CALIB that belong together.

    Raises:
        ContractError: If they are of another role, or come from different models, splits or images.
        CalibrationError: If shapes differ, a label is out of range or a logit is not finite.
    """
    logits, labels = read_logits(logits_path), read_labels(labels_path)
    if bool(logits.header) != bool(labels.header):
        raise ContractError(f"{logits_path} and {labels_path}: one has provenance and the other, a bare .pt, has none")
    for key in SHARED if logits.header else ():
        require_same(key, logits.header.get(key), "the logits file", labels.header.get(key), "the labels file")
    if logits.header and logits.header.get("role") != VAL_CALIB:
        raise ContractError(f"{logits_path} must hold logits of {VAL_CALIB}, got {logits.header.get('role')!r}")
    n, classes = check_logits(logits.values).shape
    y = check_labels(labels.values, n, classes)
    if labels.groups is not None and labels.groups.shape != (n,):
        raise CalibrationError(f"groups must have the length of the labels, {n}, got shape {labels.groups.shape}")
    names = _names(logits.header, "class_names", logits_path) if logits.header else [str(c) for c in range(classes)]
    if len(names) != classes:
        raise ContractError(f"{logits_path} has {classes} columns but names {len(names)} classes")
    positive = _names(logits.header, "positive_classes", logits_path) if logits.header else []
    return CalibrationSet(logits.values, y, labels.groups, names, positive, logits.header, logits.sha256, labels.sha256)


def _names(header: dict[str, str], key: str, path: str | Path) -> list[str]:
    """A header's list of names, which safetensors can only hold as text."""
    value = parse_json(header.get(key, "").encode(), f"{key} in the header of {path}")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ContractError(f"{key} in the header of {path} must be a list of texts, got {reprlib.repr(value)}")
    return value


def _write(path: str | Path, arrays: dict[str, NDArray[Any]], header: dict[str, str]) -> None:
    dtypes = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
    description: dict[str, Any] = {"__metadata__": {**header, "schema_version": str(SCHEMA_VERSION)}}
    content = b""
    for name, array in sorted(arrays.items()):
        data = np.ascontiguousarray(array).tobytes()
        description[name] = {
            "dtype": dtypes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    head = json.dumps(description, sort_keys=True, ensure_ascii=True).encode()
    head += b" " * (-len(head) % 8)
    write_bytes(path, len(head).to_bytes(8, "little") + head + content)


@dataclass(frozen=True)
class _Content:
    arrays: dict[str, NDArray[Any]]
    header: dict[str, str]
    sha256: str


def _read(path: str | Path, name: str, artifact: str) -> _Content:
    try:
        content = Path(path).read_bytes()
        if content.startswith(b"PK"):
            return _Content({name: _read_pt(content, path)}, {}, sha256_bytes(content))
        arrays = load(content)
    except (OSError, SafetensorError) as error:
        raise ContractError(f"{path} is no readable {artifact} file: {error}") from error
    length = int.from_bytes(content[:8], "little")  # as the format has it; `load` has checked that it fits
    header = parse_json(content[8 : 8 + length], f"the header of {path}").get("__metadata__") or {}
    stated = (header.get("artifact"), header.get("schema_version"))
    if stated != (artifact, str(SCHEMA_VERSION)) or name not in arrays:
        raise ContractError(
            f"{path} must be a {artifact} file of schema {SCHEMA_VERSION}, got {stated[0]!r}, {stated[1]!r}"
        )
    return _Content(arrays, header, sha256_bytes(content))


def _read_pt(content: bytes, path: str | Path) -> NDArray[Any]:
    import io
    import pickle

    import torch

    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ContractError(f"{path} is no plain tensor: {str(error).splitlines()[0]}") from error
    if not isinstance(value, torch.Tensor):
        raise ContractError(f"{path} must hold one tensor, got {type(value).__name__}")
    if value.is_complex() or value.is_quantized or value.layout != torch.strided:
        raise ContractError(f"{path} must hold a plain tensor of numbers, got {value.dtype}, {value.layout}")
    value = value.detach()  # a saved parameter carries its gradient
    result: NDArray[Any] = (value.float() if value.is_floating_point() else value).numpy()  # numpy knows no bfloat16
    return result
