r"""Which images of the set a `source_id` can mean.

Tools write the original of an image in their own way: `./x.jpg` and `set//x.jpg`, with `\` between folders, without the
ending, or from another folder. A source names the images of the same path; else those of the same path without ending;
else those whose name, with or without its ending, is the source's. Of several it names those with the most last folders
in common with the source, but for such as name that source themselves, and of these those that are nearest to the image
whose source it is: in the nearest of the folders above that, else anywhere below it. Taking none of several was
rejected: an image would lie in another split than its original, without a word.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence


def originals(ids: Sequence[str], sources: Sequence[str | None]) -> dict[int, Sequence[int]]:
    """The rows that can be the original of each row, where its source names any image; lists may be shared.

    Args:
        ids: Name of each image, (n,).
        sources: Name of the original of each image, as `normalised` gives it, None for none, (n,).
    """
    paths = [posixpath.normpath(name) for name in ids]
    copies: defaultdict[str, list[int]] = defaultdict(list)
    for row, source in enumerate(sources):
        if source is not None:
            copies[source].append(row)
    result: dict[int, Sequence[int]] = {}
    unknown = list(copies)
    for spelt in (str, _without_ending, posixpath.basename, lambda path: _without_ending(posixpath.basename(path))):
        named: defaultdict[str, list[str]] = defaultdict(list)
        for source in unknown:
            named[spelt(source)].append(source)
        alike: defaultdict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(paths):
            if (name := spelt(path)) in named:
                alike[name].append(row)
        for name, rows in alike.items():
            if len(rows) > 1:
                result |= _nearest(paths, sources, rows, {source: copies[source] for source in named[name]})
            else:
                result |= {copy: rows for source in named[name] for copy in copies[source]}
        unknown = [source for name, these in named.items() if name not in alike for source in these]
        if not unknown:
            break
    return result


def normalised(source: str) -> str:
    r"""A source with `/` between its folders and without `.` and `//`."""
    return posixpath.normpath(source.replace("\\", "/"))


def _nearest(
    paths: Sequence[str], sources: Sequence[str | None], rows: list[int], copies: dict[str, list[int]]
) -> Iterator[tuple[int, Sequence[int]]]:
    """Of images that sources can name alike, those that each of the sources' copies means.

    Args:
        paths: Path of each image, (n,).
        sources: Source of each image, (n,).
        rows: The images.
        copies: The rows that have each of the sources.
    """
    by_tail = _by((tail, row) for row in rows for tail in _tails(paths[row]))
    tails = {source: next(tail for tail in _tails(source) if tail in by_tail) for source in copies}
    of_tail: defaultdict[str, list[int]] = defaultdict(list)
    for source, tail in tails.items():
        of_tail[tail] += copies[source]
    for tail, those in of_tail.items():
        first = [row for row in by_tail[tail] if tails.get(sources[row] or "") != tail]
        inside = _by((posixpath.dirname(paths[row]), row) for row in first)
        below = _by((folder, row) for row in first for folder in _folders(paths[row]))
        for copy in those if first else ():
            folder = next(folder for folder in _folders(paths[copy]) if folder in below)
            yield copy, inside.get(folder) or below[folder]


def _by(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    result: defaultdict[str, list[int]] = defaultdict(list)
    for name, row in pairs:
        result[name].append(row)
    return dict(result)


def _folders(path: str) -> Iterator[str]:
    """The folders above an image, from its own to the top, which is ""."""
    while path:
        path = posixpath.dirname(path).rstrip("/")
        yield path


def _tails(path: str) -> Iterator[str]:
    """The last folders above an image, from all to none, which is ""."""
    folder = posixpath.dirname(path).lstrip("/")
    while folder:
        yield folder
        folder = folder.partition("/")[2]
    yield ""


def _without_ending(path: str) -> str:
    return posixpath.splitext(path)[0]
