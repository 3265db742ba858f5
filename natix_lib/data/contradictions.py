"""Rows whose text contradicts their class: "a worker behind a barrier" under None.

The rules are the config's, because which words contradict a class is known to whoever wrote the texts. Words are looked
for as they stand, in any case and also inside of longer ones; regular expressions were rejected, one of a person can
take minutes on one text, and a list of words says the same.
"""

from collections.abc import Sequence

from natix_lib.config import DataSource
from natix_lib.data.classes import index_of
from natix_lib.data.rows import Row, Source, some
from natix_lib.files import JsonDict

EXAMPLES = 12
AROUND = 60  # characters shown on each side of the word


def without_contradicting(source: Source, data: DataSource) -> Source:
    """The source without the rows whose text contradicts their class, where `data.contradicting` is drop."""
    if data.contradicting == "keep":
        return source
    dropped = {row.id for row, *_ in _found(source.rows, source.class_names, data)}
    if not dropped:
        return source
    names = [row.id for row in source.rows if row.id in dropped]
    return source.only(
        [row.id not in dropped for row in source.rows],
        f"left out {len(names)} of {len(source.rows)} rows whose text contradicts their class (data.contradicting: "
        f"drop): {some(names)}",
    )


def contradicted(source: Source, data: DataSource) -> tuple[JsonDict, list[str]]:
    """The rows whose text contradicts their class: their number and the first of them, and a line where there are any.

    Returns:
        What the index says of them, `documents.Contradicting`, and the lines.
    """
    found, unused = _found(source.rows, source.class_names, data), _unused(source, data)
    if not found:
        return {"count": 0, "examples": []}, unused
    examples = [
        {"id": row.id, "column": column, "word": word, "text": _around(row.tags[column] or "", word)}
        for row, column, word in found[:EXAMPLES]
    ]
    shown = some(f"{row.id} ({row.label}, {column}: {word})" for row, column, word in found)
    line = (
        f"the text of {len(found)} of {len(source.rows)} rows contradicts their class, and they are kept "
        f"(data.contradicting: drop leaves them out): {shown}"
    )
    return {"count": len(found), "examples": examples}, [*unused, line]


def _unused(source: Source, data: DataSource) -> list[str]:
    """Lines on classes, columns and spellings that the config names and no row has: a typo checks nothing."""
    names = data.class_names or source.class_names
    classes = {_class_of(row.label, names, data) for row in source.rows if row.label is not None}
    spellings = {str(row.label) for row in source.rows}
    columns = {name for row in source.rows for name in row.tags}
    lines = [
        f"data.contradictions names the class {name!r}, which no row has: classes are {some(sorted(classes))}"
        for name in data.contradictions
        if name not in classes
    ]
    asked = {column for rules in data.contradictions.values() for column in rules}
    lines += [
        f"data.contradictions names the column {column!r}, which is no free column: they are {some(sorted(columns))}"
        for column in sorted(asked - columns)
    ]
    if missing := sorted(set(data.class_aliases) - spellings):
        lines.append(f"data.class_aliases names {some(map(repr, missing))}, which no row has as its label")
    return lines


def _found(rows: Sequence[Row], declared: Sequence[str], data: DataSource) -> list[tuple[Row, str, str]]:
    """Rows whose text contradicts their class, with the column and the word; the first word of each row."""
    if not data.contradictions:
        return []
    names = data.class_names or declared
    rules = {
        name: [(column, word, word.casefold()) for column, words in columns.items() for word in words]
        for name, columns in data.contradictions.items()
    }
    found = []
    for row in rows:
        for column, word, plain in () if row.label is None else rules.get(_class_of(row.label, names, data), ()):
            if plain in (row.tags.get(column) or "").casefold():
                found.append((row, column, word))
                break
    return found


def _class_of(label: str | int, names: Sequence[str], data: DataSource) -> str:
    """The class of a label as its owner calls it."""
    position = index_of(label)
    if position is not None and 0 <= position < len(names):
        return names[position]
    return data.class_aliases.get(str(label), str(label))


def _around(text: str, word: str) -> str:
    at = max(0, text.casefold().find(word.casefold()))
    start, end = max(0, at - AROUND), at + len(word) + AROUND
    return f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}"
