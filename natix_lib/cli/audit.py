"""`natix audit`: labels of images that a policy accepted test its promise while it runs.

The rows count in the order of the file, which must be the order in which the images were drawn for the audit: a file
that grows at its end can be audited after every label, and the verdict errs no more often than it says. A file that is
sorted by its labels shows all errors of a class in a row, which no promise survives, so it is refused; `--shuffle` puts
the rows of a file that is whole into an order that only their names decide.

Where the labels name groups, one image of each counts, as in the promise: the one that the hash of its name picks,
so a group should be whole when it is audited. Images that the policy does not accept count for nothing, nor do those
that cannot be read, which are told.
"""

import csv
import itertools
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from natix_lib.cli.options import BundleFolder, path_of

if TYPE_CHECKING:
    from natix_lib.files import JsonDict

BROKEN = 3  # exit code: the promise is shown broken
SORTED_FROM = 20  # rows; fewer may stand in the order of their labels by chance
TRUTHS = {"true": True, "false": False}  # of a CSV, in any case: a spreadsheet writes TRUE


def audit(
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            show_default=False,
            parser=path_of,
            help="Table with the columns image and label, and group where images belong together.",
        ),
    ],
    bundle: BundleFolder,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            parser=path_of,
            help="What natix predict has written of the images, .csv or .jsonl; else they are scored here.",
        ),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(metavar="RISK", show_default=False, help="Risk to test; default the promised one.")
    ] = None,
    level: Annotated[
        float, typer.Option(metavar="P", help="Probability of calling a promise broken that holds.")
    ] = 0.05,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Take the rows by the hashes of their names.")] = False,
) -> None:
    """Test the promise of a bundle with labels of images that it accepted.

    Exit code 0: it stands; 2: it stands but some images could not be read, or nothing could be done; 3: it is broken.
    """
    from natix_lib.bundle.contents import read_bundle
    from natix_lib.config import Columns
    from natix_lib.data.rows import cell
    from natix_lib.data.tables import as_written, read_table
    from natix_lib.decisions.audit import audit as test
    from natix_lib.errors import DataError, printable

    documents = read_bundle(bundle)
    promised = promised_risk(documents.policy) if alpha is None else alpha
    table = read_table(labels.parent, Path(labels.name), Columns())
    columns = as_written(table.name, table.header, Columns())
    for column in (columns.image, columns.label):
        if column not in table.header:
            raise DataError(f"{labels} has no column {column!r}; it has {', '.join(table.header[:12]) or 'none'}")
    class_names = documents.manifest["class_names"]
    rows: list[tuple[str, str, str | None]] = []
    for record, place in zip(table.records, table.places, strict=True):
        image, label = cell(record.get(columns.image)), cell(record.get(columns.label))
        if image is None or label is None:
            raise DataError(f"{place}: {columns.label if image else columns.image} is empty")
        require_class(label, class_names, place)
        rows.append((str(image), str(label), cell(record.get(columns.group))))
    rows = ordered(rows, shuffle, labels)
    images = [labels.parent / row[0] for row in rows]
    said = of_file(predictions, class_names) if predictions else scored(bundle, images)
    names = [row[0] for row in rows] if predictions else list(map(str, images))
    missing = [name for name in names if name not in said]
    if missing:
        raise DataError(f"{predictions} says nothing of {len(missing)} of {len(rows)} images, first {missing[0]}")
    counted = [
        said[name]["label"] != row[1] for name, row in zip(names, rows, strict=True) if said[name].get("accepted")
    ]
    result = test(counted, promised, level)
    unit = "group" if rows[0][2] is not None else "image"
    typer.echo(sentence(result, promised, level, unit))
    unread = [name for name in names if said[name].get("error")]
    if unread:
        first = printable(f"{unread[0]}: {said[unread[0]]['error']}")
        typer.echo(
            f"{len(unread)} of {len(rows)} images could not be read and count for nothing, first {first}", err=True
        )
    if result.broken_at is not None or unread:
        raise typer.Exit(2 if result.broken_at is None else BROKEN)


def promised_risk(policy: "JsonDict") -> float:
    """The error rate of accepted images that a policy promises.

    Raises:
        ConfigError: If it promises none.
    """
    from natix_lib.decisions.promise import promise
    from natix_lib.errors import ConfigError

    guarantee = policy.get("guarantee") or {}
    kept = guarantee.get("promises") or [{**guarantee, "kind": "overall"}]
    certified = [each for each in kept if each["kind"] == "overall" and each.get("certified")]
    if not certified:
        raise ConfigError(f"the bundle promises no error rate of what it accepts, {promise(policy)}: give --alpha")
    return float(certified[0]["alpha"])


def ordered(rows: list[tuple[str, str, str | None]], shuffle: bool, where: Path) -> list[tuple[str, str, str | None]]:
    """The rows of image, label and group that count, in their order: one of each group.

    Raises:
        DataError: If there is none, an image is named twice, or they are sorted by their labels.
    """
    from natix_lib.errors import DataError

    if not rows:
        raise DataError(f"{where} lists no image")
    names = [row[0] for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise DataError(f"{where} names {twice} twice: each image counts once")
    groups: dict[str, tuple[str, str, str | None]] = {}
    for row in rows:
        key = f"group {row[2]}" if row[2] is not None else f"image {row[0]}"
        groups[key] = min(groups.get(key, row), row, key=_lot)
    kept = list(groups.values())
    if shuffle:
        return sorted(kept, key=_lot)
    runs = sum(1 for _ in itertools.groupby(row[1] for row in kept))
    if len(kept) >= SORTED_FROM and runs > 1 and runs == len({row[1] for row in kept}):
        raise DataError(
            f"{where} is sorted by its labels, so its order is not the one in which images were drawn: "
            "--shuffle takes the rows by the hashes of their names"
        )
    return kept


def _lot(row: tuple[str, str, str | None]) -> bytes:
    return sha256(row[0].encode("utf-8", "surrogateescape")).digest()


def scored(bundle: Path, images: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What the bundle says of each image, by its path."""
    from natix_lib.bundle.runtime import Bundle
    from natix_lib.cli.named_images import find_images
    from natix_lib.cli.rate import Rate
    from natix_lib.cli.scoring import Tally, scored_rows

    named = find_images(map(str, images))
    with Rate(named.count, bar=True) as rate:
        return {row["image"]: row for row in scored_rows(Bundle.load(bundle), named.images, Tally(), rate)}


def of_file(path: Path, class_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a file of natix predict says of each image, by its name: its label and accepted, or its error.

    Raises:
        DataError: If it is no such file, a row breaks a rule, or two rows of an image contradict each other.
    """
    from natix_lib.config import Columns
    from natix_lib.data.delimited import decoded, delimited
    from natix_lib.data.json_tables import from_json_lines
    from natix_lib.data.rows import cell
    from natix_lib.errors import DataError

    is_csv = path.suffix.lower() == ".csv"
    try:
        text, _ = decoded(path.read_bytes())
        header, records, places, _ = (delimited if is_csv else from_json_lines)(text, path.name, Columns())
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path} is no .csv or .jsonl of natix predict: {error}") from error
    repeated = [column for column in header if header.count(column) > 1]
    if repeated:
        raise DataError(f"{path} has the column {repeated[0]!r} twice")
    said: dict[str, dict[str, Any]] = {}
    for record, place in zip(records, places, strict=True):
        image = cell(record.get("image"))
        if image is None:
            raise DataError(f"{place}: image is empty")
        row = _checked(record, place, class_names, is_csv)
        if said.setdefault(image, row) != row:
            raise DataError(f"{path} names {image} twice, and {place} contradicts the first: each image counts once")
    return said


def _checked(record: dict[str, Any], place: str, class_names: Sequence[str], is_csv: bool) -> dict[str, Any]:
    """The label and accepted of a row of predictions, or its error alone."""
    from natix_lib.data.rows import cell
    from natix_lib.errors import DataError

    accepted, label, error = record.get("accepted"), cell(record.get("label")), cell(record.get("error"))
    if error is not None:
        if cell(accepted) is not None:
            raise DataError(f"{place}: accepted must be empty where error says why an image has none, got {accepted!r}")
        return {"error": error}
    if label is None:
        raise DataError(f"{place}: label is empty")
    require_class(label, class_names, place)
    known = TRUTHS.get(str(accepted).lower()) if is_csv else accepted
    if not isinstance(known, bool):
        raise DataError(f"{place}: accepted must be true or false, got {accepted!r}")
    return {"label": label, "accepted": known}


def require_class(label: str, class_names: Sequence[str], place: str) -> None:
    """Refuse a label that the bundle does not know.

    Raises:
        DataError: With the place and the bundle's classes.
    """
    from natix_lib.errors import DataError

    if label not in class_names:
        raise DataError(f"{place}: label {label!r} is no class of the bundle, {', '.join(class_names)}")


def sentence(result: Any, alpha: float, level: float, unit: str) -> str:
    """What is shown, in one line; it begins with `broken` or `stands`."""
    of_groups = ", one of each group," if unit == "group" else ""
    counts = f"{result.errors} of {result.n} accepted images{of_groups} are wrong"
    bounds = f"the risk is at least {result.lower:.3g} and at most {result.upper:.3g}"
    sure = f"each with a confidence of {1 - level:.3g} at all times"
    if result.broken_at is not None:
        return f"broken: {counts}; {bounds}, {sure}; promised was {alpha:.3g}, shown by image {result.broken_at}"
    return f"stands: {counts}; nothing shows a risk above {alpha:.3g}; {bounds}, {sure}"
