"""`natix review`: a page on which a person labels what a bundle's policy rejects.

Images are named, read and scored as by `natix predict`. The page is one file, for a person who may have neither natix
nor the images. A server that takes the labels was rejected: it would need a port, a login and a place to write, where
a file needs none. No page is written when nothing is rejected; a page that asks nothing would only be opened.
"""

import shlex
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from natix_lib.cli.options import BundleFolder, is_utf8, new_file
from natix_lib.cli.scoring import What
from natix_lib.errors import DataError, printable
from natix_lib.files import JsonDict, sha256_bytes, write_bytes

if TYPE_CHECKING:
    from natix_lib.bundle.runtime import Bundle
    from natix_lib.cli.named_images import NamedImage
    from natix_lib.cli.rate import Rate
    from natix_lib.cli.review_manifest import CommonFolder
    from natix_lib.cli.review_pictures import LeastConfident, Picture
    from natix_lib.cli.scoring import Tally

LIMIT, MOST = 200, 1000  # images of a page: some 16 MB and a quarter of an hour; 80 MB
LISTED = 200  # images that could not be taken in, on the page
TOLD = 10  # of them on standard error


def review(
    what: What,
    bundle: BundleFolder,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Page to write; must not exist.")
    ] = "review.html",
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=1, max=MOST, help="Most images on the page, the least confident ones."
        ),
    ] = LIMIT,
) -> None:
    """Write a page on which a person labels, by key, what the bundle's policy rejects.

    The page holds the pictures and sends nothing. What it exports is a manifest for the folder of the images, which
    natix data check, natix init and natix run read. Exit code 0: every image was scored; 2: some were not, cannot be
    named in a manifest, or nothing could be done.
    """
    from natix_lib.bundle.runtime import Bundle
    from natix_lib.cli.named_images import find_images
    from natix_lib.cli.rate import Rate
    from natix_lib.reports.review import render_review
    from natix_lib.stopping import stoppable

    path = new_file(output)
    found = find_images(what)
    loaded = Bundle.load(bundle)
    with stoppable(), Rate(found.count, bar=True) as rate:
        rejected = _rejected(loaded, found.images, limit, rate)
        seconds = rate.seconds
    content = _content(rejected, loaded.class_names)
    count = len(content["images"])
    if count:
        write_bytes(path, render_review(content).encode())
    typer.echo(f"{rejected.tally.summary(seconds)}\n{loaded.promise}", err=True)
    _tell_unread(content)
    why = (
        "no manifest can name what is rejected" if rejected.tally.to_ask else "there is no image to ask a person about"
    )
    for line in _lines(output, content) if count else [f"no page: {why}"]:
        typer.echo(line if is_utf8() else line.encode("ascii", "backslashreplace").decode())
    if content["unread_count"]:
        raise typer.Exit(2)


@dataclass
class _Rejected:
    """What the policy rejects of the images that were scored, and what could not be read.

    Attributes:
        tally: What became of all of them.
        folder: Holds all that were scored.
        asked: The images of the page.
        unread: Name and reason of the first that could not be read.
    """

    tally: "Tally"
    folder: "CommonFolder"
    asked: "LeastConfident"
    unread: list[JsonDict] = field(default_factory=list)


def _rejected(bundle: "Bundle", images: "Iterable[NamedImage]", limit: int, rate: "Rate") -> _Rejected:
    from natix_lib.cli.named_images import NamedImage
    from natix_lib.cli.review_manifest import CommonFolder, address_of
    from natix_lib.cli.review_pictures import LeastConfident, pictured
    from natix_lib.cli.scoring import Tally, scored_rows

    rejected = _Rejected(Tally(), CommonFolder(), LeastConfident(limit))
    pictures: deque[Picture] = deque()  # of the images that were taken ahead of the model

    def opened() -> "Iterator[NamedImage]":
        for image, picture in pictured(images):
            pictures.append(picture)
            yield NamedImage(image.name, picture)

    for row in scored_rows(bundle, opened(), rejected.tally, rate):
        picture = pictures.popleft()
        if "error" in row:
            if len(rejected.unread) < LISTED:
                rejected.unread.append({"name": row["image"], "reason": row["error"]})
            continue
        address = address_of(row["image"])
        rejected.folder.add(address)
        if not row["accepted"] and picture.small:
            rejected.asked.add(row["probabilities"][row["label"]], address, picture.small)
    return rejected


def _content(rejected: _Rejected, class_names: list[str]) -> JsonDict:
    """What the page shows; see `reports.review.render_review`."""
    from natix_lib.cli.review_manifest import HEADER, image_cell, quoted

    folder, asked = rejected.folder, rejected.asked.in_order()
    images, unnamed = [], []
    for one in asked:
        name = folder.name(one.address)
        try:
            cell = image_cell(name)
        except DataError as error:
            unnamed.append({"name": one.address, "reason": str(error)})
        else:
            images.append({"key": _digest(name, one.src), "name": printable(name), "cell": cell, "src": one.src})
    name = f"reviewed-{_digest(*(image['key'] for image in images))[:8]}.csv"
    place = folder.address
    return {
        "slot": f"natix review {_digest(place, *class_names)}",
        "file": name,
        "folder": place,
        "next": f"natix data check {shlex.quote(place)} --set data.manifest={name}",
        "header": HEADER,
        "classes": [{"name": class_name, "cell": quoted(class_name)} for class_name in class_names],
        "images": images,
        "left_out": rejected.tally.to_ask - rejected.asked.repeated - len(asked),
        "most": MOST,
        "unread": [*unnamed, *rejected.unread][:LISTED],
        "unread_count": len(unnamed) + rejected.tally.failed,
    }


def _digest(*parts: str) -> str:
    """Of texts, so that other texts have another one, 16 hex digits."""
    return sha256_bytes("\0".join(parts).encode("utf-8", "surrogateescape"))[:16]


def _tell_unread(content: dict[str, Any]) -> None:
    for one in content["unread"][:TOLD]:
        typer.echo(printable(f"not taken in: {one['name']}: {one['reason']}"), err=True)
    if content["unread_count"] > TOLD:
        typer.echo(f"not taken in: {content['unread_count'] - TOLD} more", err=True)


def _lines(output: str, content: JsonDict) -> list[str]:
    """Where the page is, and what becomes of what is labelled on it."""
    left_out = content["left_out"]
    more = f"; {left_out} more are left out: --limit takes in up to {MOST}" if left_out else ""
    lines = [
        f"page    {output}, {len(content['images'])} images, the least confident first{more}",
        f"export  {content['file']}, for the folder {content['folder']}",
        f"next    {content['next']}",
    ]
    return list(map(printable, lines))
