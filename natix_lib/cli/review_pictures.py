"""What a review shows of an image, and which images it shows: the least confident, a bounded number of them.

A picture is taken from what was decoded for the model, so an image is read once; a model that sees so little that a
person would see nothing in it has the image decoded again, and scores what it scores for `natix predict`. Until a
picture is known to be shown it is pixels: most images are accepted and need no JPEG.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

from PIL import Image

from natix_lib.bundle.pictures import Opener
from natix_lib.cli.named_images import NamedImage
from natix_lib.data.thumbnails import data_uri
from natix_lib.transform import resized

PIXELS = 640 * 480  # of a picture; some 60 kB, and cones far away can still be told
LONGEST = 1280  # pixels of a side of a panorama
LEAST_SHORTER = 256  # of what is asked of the decoder, pixels: it gives twice that, where the image has it
QUALITY = 75


class Picture:
    """Opens an image, as its opener does, and keeps a smaller copy of it.

    Attributes:
        small: The copy, RGB; None until the image was opened.
    """

    def __init__(self, opener: Opener) -> None:
        self.small: Image.Image | None = None
        self._opener = opener

    def __call__(self, shorter_side: int) -> Image.Image:
        """The image; DataError as the opener raises it."""
        image = self._opener(shorter_side)
        self.small = _reduced(image if shorter_side >= LEAST_SHORTER else self._opener(LEAST_SHORTER))
        return image


def pictured(images: Iterable[NamedImage]) -> Iterator[tuple[NamedImage, Picture]]:
    """Each image with what opens it."""
    for image in images:
        yield image, Picture(image.open)


def _reduced(image: Image.Image) -> Image.Image:
    width, height = image.size
    scale = min(1, sqrt(PIXELS / (width * height)), LONGEST / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.copy() if size == image.size else resized(image, size, (0, 0, width, height))


@dataclass(frozen=True)
class Asked:
    """An image that a person is asked about: its address and its picture, a data URI."""

    address: str
    src: str


class LeastConfident:
    """The least confident of the images that are added, at most so many; of equal ones the first.

    Attributes:
        repeated: How often an image was added again that is held.
    """

    def __init__(self, limit: int) -> None:
        self.repeated = 0
        self._limit = limit
        self._heap: list[tuple[float, int, Asked]] = []  # the most confident first: negative, and later ones lower
        self._held: set[str] = set()
        self._added = 0

    def add(self, confidence: float, address: str, small: Image.Image) -> None:
        """Take in an image, if it is among the least confident.

        Args:
            confidence: Probability of its label.
            address: Where it is; the same address is the same image.
            small: Its picture, RGB.
        """
        self._added += 1
        rank = (-confidence, -self._added)
        if address in self._held:
            self.repeated += 1
            return
        if len(self._heap) == self._limit:
            if rank < self._heap[0][:2]:
                return
            self._held.discard(heapq.heappop(self._heap)[2].address)
        heapq.heappush(self._heap, (*rank, Asked(address, data_uri(small, QUALITY))))
        self._held.add(address)

    def in_order(self) -> list[Asked]:
        """The least confident first."""
        return [asked for _, _, asked in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
