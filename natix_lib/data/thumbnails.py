"""Small pictures for a page: JPEG in data URIs, so that the page needs no other file, and bounded in all.

160 pixels are sharp at the width that a phone gives one of two pictures, and take some 5 kB.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageFile

from natix_lib.data.decode import MAX_PIXELS
from natix_lib.data.rows import Source, read_file
from natix_lib.files import JsonDict

SIDE = 160  # pixels of the longer side
QUALITY = 60
REJECTS = 12  # shown
REASON = 300  # characters
MOST_BYTES = 1_500_000  # of all pictures of a page


class Thumbnails:
    """The small pictures of stored images, until they fill the page."""

    def __init__(self, images: Any, most_bytes: int = MOST_BYTES) -> None:
        """Take pictures from the column `image` of the Arrow table `images`."""
        self._images, self._left = images.column("image"), most_bytes

    def of(self, row: int) -> str:
        """The picture of a row as a data URI; "" where there is no room."""
        if self._left <= 0:
            return ""
        uri = thumbnail(self._images[int(row)]["bytes"].as_py())
        self._left -= len(uri)
        return uri


def thumbnail(content: bytes) -> str:
    """A JPEG that natix has stored, small, as a data URI."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        image.draft("RGB", (SIDE, SIDE))
        return _uri(image.convert("RGB"))


def shown_rejects(source: Source, rejects: Sequence[tuple[str, str]]) -> list[JsonDict]:
    """The first rejects with their reason and what can be seen of them, where they are files of their own.

    Args:
        source: The source that they are rows of.
        rejects: Id and reason of each.
    """
    shown = dict(rejects[:REJECTS])
    rows = {row.id: number for number, row in enumerate(source.rows) if row.id in shown} if shown else {}
    content = {name: read_file(source.file(rows[name])) for name in shown} if source.file else {}
    return [
        {"id": name, "reason": reason[:REASON], "src": damaged(seen) if isinstance(seen, bytes) else ""}
        for name, reason in shown.items()
        for seen in [content.get(name)]
    ]


def damaged(content: bytes) -> str:
    """What can be seen of a file that was refused, as a data URI; "" where nothing can.

    Only JPEG in one scan, which is drawn up to eight times smaller and from the top as far as it is whole: a file that
    was refused for what it would cost must not cost it here.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.info.get("progressive") or image.width * image.height > MAX_PIXELS:
                return ""
            image.draft("RGB", (SIDE, SIDE))
            try:
                image.load()
            except OSError:
                if not isinstance(image, ImageFile.ImageFile) or image._im is None:
                    return ""
                image.tile = []  # what is there is all that there will be
            return _uri(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return ""


def _uri(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    return data_uri(image, QUALITY)


def data_uri(image: Image.Image, quality: int) -> str:
    """An RGB image as a data URI that holds a JPEG of this quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
