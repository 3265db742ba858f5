"""What rows say that cannot be meant: placeholders, impossible slices, unreadable times, contradicting labels.

A placeholder is made empty here, where rows become a dataset, so that no later rule can join half of the data by
`unknown` or by latitude 0, longitude 0. What may be meant (one drive that holds half of the rows, a fixed camera) is
kept and said: parting images of one scene would leak, and joining too many is refused by split where it does not fit.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from natix_lib.arrays import Floats
from natix_lib.data.drives import CANNOT_TELL
from natix_lib.data.frames import in_drives, numbered
from natix_lib.data.placeholders import is_missing_label, is_placeholder
from natix_lib.data.rows import Row, some
from natix_lib.data.times import days_alone, seconds

LARGE = 0.5  # share of the rows in one group or at one place that is said: split can hardly divide the rest
ISLAND = 1e-3  # degrees, 110 m
PLACED_ROWS = 20  # fewer rows at one place are no sign of a default


def without_placeholders(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows whose placeholders are empty, and what was changed or is doubtful, a line for each rule.

    Args:
        rows: All rows of the source.

    Returns:
        The rows in their order, and the lines: rows that name no drive first.
    """
    cleaned, lines = list(rows), []
    for key in ("group", "source_id"):
        doubtful = [row for row in cleaned if getattr(row, key) and is_placeholder(str(getattr(row, key)))]
        if doubtful:
            values = Counter(str(getattr(row, key)) for row in doubtful)
            words = some(repr(value) for value, _ in values.most_common())
            lines.append(
                f"{key} {words} is a placeholder in {_share(doubtful, rows)} and joins nothing: {_ids(doubtful)}"
            )
            names = {row.id for row in doubtful}
            cleaned = [Row(**{**vars(row), key: None}) if row.id in names else row for row in cleaned]
    island = [row for row in cleaned if _is_island(row)]
    if island:
        lines.append(f"lat 0, lon 0 is a placeholder in {_share(island, rows)} and joins nothing: {_ids(island)}")
        cleaned = [replace(row, lat=None, lon=None) if _is_island(row) else row for row in cleaned]
    times = seconds([row.captured_at for row in cleaned])
    return cleaned, [*_ungrouped(cleaned, times), *lines, *_large(cleaned), *_times(cleaned, times), *_labels(cleaned)]


def _is_island(row: Row) -> bool:
    """Whether a row lies where receivers say that they know no place: latitude 0, longitude 0, in the open sea."""
    return row.lat is not None and row.lon is not None and abs(row.lat) < ISLAND and abs(row.lon) < ISLAND


def without_names(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows without the tags that name images: a tag whose values hold fewer than two rows on average is no slice."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        for name, value in row.tags.items():
            if value is not None:
                values[name].append(value)
    names = {name: len(set(every)) for name, every in values.items() if 2 * len(set(every)) > len(every)}
    if not names:
        return list(rows), []
    line = f"left out {len(names)} columns with almost as many values as rows, which are no slices: " + some(
        f"{name} ({count} values in {len(values[name])} rows)" for name, count in sorted(names.items())
    )
    return [
        replace(row, tags={name: value for name, value in row.tags.items() if name not in names}) for row in rows
    ], [line]


def contradictions(images: Sequence[tuple[str, str, str]]) -> list[str]:
    """A line when equal pixels stand under two classes.

    Args:
        images: Id, hash of the pixels and class of each image.
    """
    first: dict[str, tuple[str, str]] = {}
    others: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, pixels, label in images:
        if first.setdefault(pixels, (name, label))[1] != label:
            others[pixels].setdefault(label, name)
    if not others:
        return []
    pairs = [
        " and ".join(f"{name} ({label})" for name, label in [first[pixels], *((n, k) for k, n in names.items())])
        for pixels, names in others.items()
    ]
    count = sum(pixels in others for _, pixels, _ in images)
    return [f"{len(others)} pictures have equal pixels and contradicting labels, {count} images: {some(pairs)}"]


def _large(rows: Sequence[Row]) -> list[str]:
    """Groups and places that hold most of the rows."""
    lines = []
    groups = Counter(row.group for row in rows if row.group)
    places = Counter((row.lat, row.lon) for row in rows if row.lat is not None)
    for value, count in groups.most_common(1):
        if count > LARGE * len(rows):
            lines.append(
                f"group {value!r} holds {count} of {len(rows)} rows ({count / len(rows):.0%}), which are kept "
                "together: leave the cells empty if it is a placeholder"
            )
    for (lat, lon), count in places.most_common(1):
        if count > LARGE * len(rows) and count >= PLACED_ROWS:
            lines.append(
                f"lat {lat}, lon {lon} is given for {count} of {len(rows)} rows ({count / len(rows):.0%}), which are "
                "kept together: leave the cells empty if it is a default"
            )
    return lines


def _times(rows: Sequence[Row], times: Floats) -> list[str]:
    """Times that cannot be read, days without a clock, and one time of most rows; `times` is seconds, (n,)."""
    given = np.array([row.captured_at is not None for row in rows], dtype=bool)
    timed = list(itertools.compress(rows, given.tolist()))
    texts = [row.captured_at for row in timed]
    time, day = times[given], days_alone(texts)
    lines = []
    unreadable = [row for row, known, alone in zip(timed, np.isfinite(time), day, strict=True) if not known | alone]
    if unreadable:
        examples = some(f"{row.captured_at} ({row.id})" for row in unreadable)
        lines.append(
            f"captured_at is neither ISO 8601, a time of EXIF nor seconds since 1970 in {_share(unreadable, rows)}, "
            f"kept as text, and joins nothing: {examples}"
        )
    days = [row for row, alone in zip(timed, day, strict=True) if alone]
    if days:
        lines.append(
            f"captured_at is a day without a clock in {_share(days, rows)} and joins nothing: {days[0].captured_at} "
            f"({days[0].id})"
        )
    for value, count in Counter(time[np.isfinite(time)].tolist()).most_common(1):
        if count > LARGE * len(rows) and count >= PLACED_ROWS:
            text = next(text for text, known in zip(texts, time, strict=True) if known == value)
            lines.append(
                f"captured_at {text} is given for {count} of {len(rows)} rows ({count / len(rows):.0%}), which "
                "are kept together: leave the cells empty if it is a default"
            )
    return lines


def _labels(rows: Sequence[Row]) -> list[str]:
    doubtful = [row for row in rows if is_missing_label(str(row.label))]
    if not doubtful:
        return []
    return [
        f"label {some(sorted({repr(row.label) for row in doubtful}))} looks like a missing label in "
        f"{_share(doubtful, rows)} and is a class all the same: {_ids(doubtful)}"
    ]


def _ungrouped(rows: Sequence[Row], times: Floats) -> list[str]:
    """A line when rows name nothing that tells drives apart; `times` is seconds, (n,)."""
    given = [row.group is not None or row.source_id is not None or row.lat is not None for row in rows]
    frames = numbered([row.id for row in rows])
    told = np.array(given, dtype=bool) | np.isfinite(times) | np.isfinite(frames.time)
    alone = list(itertools.compress(rows, (~told).tolist()))
    if not alone:
        return []
    named = int(in_drives(frames)[~told].sum())
    names = f"; names of {named} of them number frames, which split believes where pictures confirm it" if named else ""
    return [
        f"{CANNOT_TELL} in {_share(alone, rows)}: they name neither group, place, source_id nor time{names}; frames of "
        "one drive can reach two splits unless they look alike; a manifest.csv with a group column prevents it"
    ]


def _share(some_rows: Sequence[Row], rows: Sequence[Row]) -> str:
    return f"{len(some_rows)} of {len(rows)} rows ({len(some_rows) / len(rows):.0%})"


def _ids(rows: Sequence[Row]) -> str:
    return some(row.id for row in rows)
