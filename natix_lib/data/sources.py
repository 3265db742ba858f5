"""Where labelled images come from: a manifest, Hugging Face style Parquet, or a folder for each class.

Facts are read first, as text: `None` is a class of roadwork data sets and must never be taken for a missing value.
Images are then streamed one after another, so that a set larger than memory can be read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from natix_lib.config import Columns, DataSource
from natix_lib.contracts import ROLE_ALIASES, ROLES, parse_role
from natix_lib.errors import ContractError, DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
MANIFESTS = ("manifest.csv", "manifest.parquet")
TRUE, FALSE = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}


@dataclass(frozen=True)
class Row:
    """An image's facts; None where the source says nothing."""

    id: str
    label: str | int | None
    group: str | None = None
    source_id: str | None = None
    captured_at: str | None = None
    given_split: str | None = None
    lat: float | None = None
    lon: float | None = None
    is_synthetic: bool | None = None
    tags: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Rows, and their images in the same order: bytes, or the reason why there are none.

    Attributes:
        rows: One for each image.
        images: Starts a new pass over the images.
        class_names: Declared by the source for integer labels; empty when it declares none.
        warning: What the owner of the data should know; may be empty.
    """

    rows: list[Row]
    images: Callable[[], Iterator[bytes | DataError]]
    class_names: list[str] = field(default_factory=list)
    warning: str = ""


def open_source(root: Path, wanted: DataSource) -> Source:
    """Read the facts of a data set and get ready to stream its images.

    Args:
        root: The local folder of `wanted.data_root`.
        wanted: Format, columns and manifest.

    Raises:
        DataError: If nothing readable is there, a column is missing, or a fact breaks its rule.
    """
    if not any(root.iterdir()):
        raise DataError(f"data.data_root {root} is empty")
    manifest = _manifest(root, wanted)
    parquet = sorted(root.rglob("*.parquet"))
    kind = wanted.format
    if kind == "auto":
        kind = "manifest" if manifest else "parquet" if parquet else "folder"
    if kind == "manifest":
        if manifest is None:
            raise DataError(f"data.data_root {root} has neither {MANIFESTS[0]} nor {MANIFESTS[1]}: set data.manifest")
        source = _from_manifest(root, manifest, wanted.columns)
    elif kind == "parquet":
        if not parquet:
            raise DataError(f"data.data_root {root} has no .parquet file")
        source = _from_parquet(root, parquet, wanted.columns)
    else:
        source = _from_folders(root)
    ids: set[str] = set()
    for row in source.rows:
        if row.id in ids:
            raise DataError(f"image {row.id} is listed twice")
        ids.add(row.id)
    if not source.rows:
        raise DataError(f"data.data_root {root} lists no image")
    return source


def _manifest(root: Path, wanted: DataSource) -> Path | None:
    if wanted.manifest:
        path = root / wanted.manifest
        if not path.is_file():
            raise DataError(f"data.manifest {wanted.manifest} does not exist in {root}")
        return path
    return next((root / name for name in MANIFESTS if (root / name).is_file()), None)


def _from_manifest(root: Path, manifest: Path, columns: Columns) -> Source:
    try:
        if manifest.suffix.lower() == ".parquet":
            records = pq.read_table(manifest).to_pylist()
            header = pq.read_schema(manifest).names
        else:
            frame = pd.read_csv(manifest, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            records, header = frame.to_dict("records"), list(frame.columns)
    except (ValueError, pa.ArrowException, OSError) as error:
        raise DataError(f"manifest {manifest} cannot be read: {error}") from error
    _require_columns(manifest, header, columns)
    rows = [
        _row(_text(record[columns.image]) or "", record, header, columns, f"{manifest.name} row {number}")
        for number, record in enumerate(records, 2 if manifest.suffix.lower() != ".parquet" else 0)
    ]
    for row in rows:
        if not row.id or Path(row.id).is_absolute() or ".." in Path(row.id).parts:
            raise DataError(f"manifest {manifest.name}: image must be a path below data.data_root, got {row.id!r}")

    def images() -> Iterator[bytes | DataError]:
        return (_read(root / row.id) for row in rows)

    return Source(rows, images)


def _read(path: Path) -> bytes | DataError:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return DataError("no such file")
    except OSError as error:
        return DataError(error.strerror or str(error))


def _from_parquet(root: Path, files: list[Path], columns: Columns) -> Source:
    rows: list[Row] = []
    names: list[str] = []
    try:
        for path in files:
            schema = pq.read_schema(path)
            _require_columns(path, schema.names, columns)
            if not _holds_images(schema.field(columns.image).type):
                raise DataError(
                    f"{path.name}: column {columns.image} must hold image bytes, it is "
                    f"{schema.field(columns.image).type}; set data.format: manifest for a list of paths"
                )
            names = names or _declared_names(schema, columns.label)
            flat = [name for name in schema.names if _is_scalar(schema.field(name).type) and name != columns.image]
            given = _role_of_file(path)
            relative = path.relative_to(root).as_posix()
            for number, record in enumerate(pq.read_table(path, columns=flat).to_pylist()):
                name = f"{relative}#{number}"
                row = _row(name, record, flat, columns, name)
                rows.append(row if row.given_split or not given else Row(**{**vars(row), "given_split": given}))
    except pa.ArrowException as error:
        raise DataError(f"Parquet in {root} cannot be read: {error}") from error

    def images() -> Iterator[bytes | DataError]:
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=64, columns=[columns.image]):
                for value in batch.column(0).to_pylist():
                    content = value.get("bytes") if isinstance(value, dict) else value
                    yield content if content is not None else DataError("no image bytes")

    return Source(rows, images, names)


def _holds_images(kind: Any) -> bool:
    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_scalar(kind: Any) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _declared_names(schema: Any, label: str) -> list[str]:
    """Class names of a ClassLabel column, from the metadata that Hugging Face datasets writes."""
    import json

    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = metadata.get("info", {}).get("features", {}).get(label, {})
    return [str(name) for name in feature.get("names", [])] if isinstance(feature, dict) else []


def _role_of_file(path: Path) -> str | None:
    """The role that a split-named file or folder gives: train-00000-of-00004.parquet, test.parquet, val/x.parquet."""
    for word in (path.stem, path.parent.name):
        word = word.lower()
        for name in sorted({*(role.lower() for role in ROLES), *ROLE_ALIASES}, key=len, reverse=True):
            if word == name or word.startswith((f"{name}-", f"{name}_", f"{name}.")):
                return parse_role(name)
    return None


def _from_folders(root: Path) -> Source:
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    relative = [path.relative_to(root) for path in paths]
    if not paths or any(len(path.parts) < 2 for path in relative):
        raise DataError(
            f"data.data_root {root} has no {MANIFESTS[0]}, no {MANIFESTS[1]}, no .parquet file and no folder of "
            "images for each class"
        )
    roles = {path.parts[0]: _role_of_file(Path(path.parts[0])) for path in relative}
    by_role = all(roles.values()) and all(len(path.parts) > 2 for path in relative)
    rows = [
        Row(path.as_posix(), path.parts[1] if by_role else path.parts[0], given_split=roles[path.parts[0]])
        if by_role
        else Row(path.as_posix(), path.parts[0])
        for path in relative
    ]

    def images() -> Iterator[bytes | DataError]:
        return (_read(path) for path in paths)

    return Source(
        rows,
        images,
        warning="an image folder carries no groups: frames of one drive can reach two splits unless they look alike; "
        "a manifest.csv with a group column prevents it",
    )


def _require_columns(path: Path, header: list[str], columns: Columns) -> None:
    for key in ("image", "label"):
        name = getattr(columns, key)
        if name not in header:
            raise DataError(
                f"{path.name} has no column {name!r} (data.columns.{key}); it has {', '.join(map(str, header[:12]))}"
            )


def _row(name: str, record: dict[Any, Any], header: list[str], columns: Columns, where: str) -> Row:
    """A row of a table; free scalar columns become tags."""
    known = set(columns.model_dump().values())

    def text(key: str) -> str | None:
        return _text(record.get(getattr(columns, key)))

    def number(key: str, limit: float) -> float | None:
        value = text(key)
        if value is None:
            return None
        try:
            parsed = float(value)
        except ValueError:
            parsed = float("nan")
        if not abs(parsed) <= limit:
            raise DataError(f"{where}: {key} must be a number within +-{limit:g}, got {value!r}")
        return parsed

    split, synthetic = text("split"), text("is_synthetic")
    if synthetic is not None and synthetic.lower() not in TRUE | FALSE:
        raise DataError(f"{where}: is_synthetic must be true or false, got {synthetic!r}")
    try:
        role = parse_role(split) if split is not None else None
    except ContractError as error:
        raise DataError(f"{where}: {error}") from error
    label = record[columns.label]
    lat, lon = number("lat", 90), number("lon", 180)
    if (lat is None) != (lon is None):
        raise DataError(f"{where}: lat and lon must both be given or both be empty, got {lat} and {lon}")
    return Row(
        id=name,
        label=int(label) if isinstance(label, int) and not isinstance(label, bool) else _text(label),
        group=text("group"),
        source_id=text("source_id"),
        captured_at=text("captured_at"),
        given_split=role,
        lat=lat,
        lon=lon,
        is_synthetic=None if synthetic is None else synthetic.lower() in TRUE,
        tags={key: _text(record[key]) for key in header if key not in known},
    )


def _text(value: Any) -> str | None:
    """A cell as text; empty or missing is None."""
    if value is None or value != value:
        return None
    return str(value).strip() or None
