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

from natix_lib.contracts import SCHEMA_VERSION, VAL_CALIB, VAL_SELECT, require_same
from natix_lib.decisions.score import Logits, check_labels, check_logits
from natix_lib.decisions.slices import NONE, Tags
from natix_lib.errors import CalibrationError, ContractError
from natix_lib.files import parse_json, sha256_bytes, write_bytes

SHARED = ("model_sha256", "splits_sha256", "dataset_fingerprint", "ids_sha256", "class_names", "role")
OF_A_MODEL = ("model_sha256", "splits_sha256", "dataset_fingerprint")  # the same in the files of both roles


@dataclass(frozen=True)
class LogitsFile:
    """Logits float32 (n, C), the header that says where they come from, empty for a `.pt`, and the file's SHA-256."""

    values: NDArray[np.float32]
    header: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class LabelsFile:
    """Labels int64 (n,), group numbers int64 (n,) or None, tags or None, the header, and the file's SHA-256."""

    values: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    tags: Tags | None
    header: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class CalibrationSet:
    """Logits and labels that belong together.

    Attributes:
        logits: Finite logits of each image, float32 as in the file or float64 where a bias was added, (n, C).
        labels: Class of each image, int64 (n,), in 0..C-1.
        groups: Group number of each image, int64 (n,); None when unknown.
        class_names: Names of the C classes, in order of the logits' columns.
        positive_classes: Positive classes of the binary score; may be empty.
        header: Where the files come from, by name; empty for `.pt` files.
        logits_sha256: SHA-256 of the logits' file.
        labels_sha256: SHA-256 of the labels' file.
        tags: Tags of each image; None when unknown, as in files of before they were kept.
    """

    logits: Logits
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    class_names: list[str]
    positive_classes: list[str]
    header: dict[str, str]
    logits_sha256: str
    labels_sha256: str
    tags: Tags | None = None


def logits_name(role: str) -> str:
    """Name of the artifact that holds a role's logits."""
    return f"{role.lower()}_logits"


def labels_name(role: str) -> str:
    """Name of the artifact that holds a role's labels."""
    return f"{role.lower()}_labels"


def write_logits(path: str | Path, values: NDArray[np.float32], header: dict[str, str]) -> None:
    """Write logits (n, C) with their header, whole or not at all; equal input gives equal bytes."""
    _write(path, {"logits": np.asarray(values, dtype=np.float32)}, {**header, "artifact": logits_name(header["role"])})


def write_labels(
    path: str | Path,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    header: dict[str, str],
    tags: Tags | None = None,
) -> None:
    """Write labels and group numbers, each (n,), with their header, and the tags where they are known."""
    arrays: dict[str, NDArray[Any]] = {
        "labels": np.asarray(labels, dtype=np.int64),
        "group": np.asarray(groups, dtype=np.int64),
    }
    if tags is not None:
        arrays["tags"] = np.asarray(tags.codes, dtype=np.int16)
        names = [[tag, list(values)] for tag, values in tags.values.items()]  # in the order of the columns
        header = {**header, "tags": _text(names), "tags_left_out": _text(list(tags.left_out))}
    _write(path, arrays, {**header, "artifact": labels_name(header["role"])})


def read_logits(path: str | Path, role: str = VAL_CALIB) -> LogitsFile:
    """Read the logits of a role.

    Raises:
        ContractError: If the file is neither safetensors nor a plain `.pt` tensor, or of another artifact.
    """
    content = _read(path, "logits", logits_name(role))
    return LogitsFile(content.arrays["logits"].astype(np.float32), content.header, content.sha256)


def read_labels(path: str | Path, role: str = VAL_CALIB) -> LabelsFile:
    """Read labels, groups and tags; raises as `read_logits`."""
    content = _read(path, "labels", labels_name(role))
    for name, values in content.arrays.items():
        if values.dtype.kind not in "iu":
            raise ContractError(f"{path}: {name} must be whole numbers, got {values.dtype}")
    labels, groups = content.arrays["labels"].astype(np.int64), content.arrays.get("group")
    return LabelsFile(labels, groups, _tags(content, path), content.header, content.sha256)


def read_pair(logits_path: str | Path, labels_path: str | Path, role: str = VAL_CALIB) -> CalibrationSet:
    """Read logits and labels of a role that belong together.

    Raises:
        ContractError: If they are of another role, or come from different models, splits or images.
        CalibrationError: If shapes differ, a label is out of range or a logit is not finite.
    """
    logits, labels = read_logits(logits_path, role), read_labels(labels_path, role)
    if bool(logits.header) != bool(labels.header):
        raise ContractError(f"{logits_path} and {labels_path}: one has provenance and the other, a bare .pt, has none")
    for key in SHARED if logits.header else ():
        require_same(key, logits.header.get(key), "the logits file", labels.header.get(key), "the labels file")
    if logits.header and logits.header.get("role") != role:
        raise ContractError(f"{logits_path} must hold logits of {role}, got {logits.header.get('role')!r}")
    n, classes = check_logits(logits.values).shape
    y = check_labels(labels.values, n, classes)
    if labels.groups is not None and labels.groups.shape != (n,):
        raise CalibrationError(f"groups must have the length of the labels, {n}, got shape {labels.groups.shape}")
    if labels.tags is not None and len(labels.tags.codes) != n:
        raise CalibrationError(f"tags must have the length of the labels, {n}, got {len(labels.tags.codes)}")
    names = _names(logits.header, "class_names", logits_path) if logits.header else [str(c) for c in range(classes)]
    if len(names) != classes:
        raise ContractError(f"{logits_path} has {classes} columns but names {len(names)} classes")
    positive = _names(logits.header, "positive_classes", logits_path) if logits.header else []
    return CalibrationSet(
        logits.values, y, labels.groups, names, positive, logits.header, logits.sha256, labels.sha256, labels.tags
    )


def read_select(logits_path: str, labels_path: str, data: CalibrationSet) -> CalibrationSet | None:
    """Read logits and labels of VAL_SELECT that the model of `data` has given; None where both paths are "".

    Raises:
        ContractError: If one of the two is missing or without provenance, or they are of another role, model, splits
            or classes than `data`, which must be of VAL_CALIB.
        CalibrationError: As `read_pair`.
    """
    if not logits_path and not labels_path:
        return None
    if not logits_path or not labels_path:
        given, missing = ("logits", "labels") if logits_path else ("labels", "logits")
        raise ContractError(f"{given} of {VAL_SELECT} are given without its {missing}: give both files or neither")
    select = read_pair(logits_path, labels_path, VAL_SELECT)
    for name, header in ((VAL_SELECT, select.header), (VAL_CALIB, data.header)):
        if not header:
            raise ContractError(
                f"logits of {VAL_SELECT} and {VAL_CALIB} together need provenance, got a bare .pt of {name}"
            )
    for key in OF_A_MODEL:
        require_same(key, data.header.get(key), f"{VAL_CALIB} logits", select.header.get(key), f"{VAL_SELECT} logits")
    for key in ("class_names", "positive_classes"):
        require_same(key, getattr(data, key), f"{VAL_CALIB} logits", getattr(select, key), f"{VAL_SELECT} logits")
    return select


def _names(header: dict[str, str], key: str, path: str | Path) -> list[str]:
    """A header's list of names, which safetensors can only hold as text."""
    value = parse_json(header.get(key, "").encode(), f"{key} in the header of {path}")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ContractError(f"{key} in the header of {path} must be a list of texts, got {reprlib.repr(value)}")
    return value


def _tags(content: "_Content", path: str | Path) -> Tags | None:
    """The tags of a labels file; None where it has none."""
    codes = content.arrays.get("tags")
    if codes is None:
        return None
    listed = parse_json(content.header.get("tags", "").encode(), f"tags in the header of {path}")
    try:
        values = {str(tag): [str(value) for value in names] for tag, names in listed}
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"tags in the header of {path} must be pairs of a tag and its values, got {reprlib.repr(listed)}"
        ) from error
    most = np.array([len(names) for names in values.values()])
    if codes.ndim != 2 or codes.shape[1] != len(values) or ((codes < NONE) | (codes >= most)).any():
        raise ContractError(
            f"{path}: tags must be numbers of the values of its {len(values)} tags or {NONE}, got shape {codes.shape}"
        )
    return Tags(values, codes.astype(np.int16), _names(content.header, "tags_left_out", path))


def _text(value: Any) -> str:
    """For a header, whose values are texts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(path: str | Path, arrays: dict[str, NDArray[Any]], header: dict[str, str]) -> None:
    dtypes = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64", np.dtype(np.int16): "I16"}
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
