"""Windows of a picture and their perceptual hashes: how copies that were cropped, turned or written on are found.

One hash of the whole picture misses most of what people do to pictures: of crops by 5 % it finds half, of mirrored and
letterboxed ones nearly none. So a picture is hashed whole and through windows: without a twentieth or a tenth at each
side or at all four, without a sixth at each side, which is what a bar or a caption covers, and from its middle turned
by 1.5 and 3 degrees. A copy that was changed so agrees with some window of the picture that it was made of; turning the
other way is turning the other one. Where two opposite sides have even borders, what they frame is hashed in the same
way; borders on one side are none, because a bright sky is one.

A hash holds the signs of the 64 lowest frequencies of the window's cosine transform. Signs, not the side of the median
as in the usual pHash: mirroring a picture then flips known bits, so a mirrored copy needs no hash of its own. The
transform is integrated over the squares of a small grey picture, so that all windows cost two small matrix products.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.arrays import Floats

SIDE = 64  # of the square grey picture that is hashed
BORDER_SIDE = 128  # of the one that borders are looked for in
FREQUENCIES = 10  # in each direction, of which the 64 lowest are taken
FLAT = 2.0  # grey levels; a window that varies less has no hash worth comparing
EVEN = 12.0  # grey levels between the darkest and the brightest of a row that is a border
MOST_BORDER = 0.4  # of a side that can be border at each end
WHOLE = (0.0, 0.0, 1.0, 1.0)

Box = tuple[float, float, float, float]  # left, top, right and bottom, as shares of width and height


@dataclass(frozen=True)
class Window:
    """A part of a picture.

    Attributes:
        name: Words for it.
        box: Where it lies, after turning.
        degrees: By how much the picture is turned about its centre first, anticlockwise.
    """

    name: str
    box: Box
    degrees: float = 0.0


def _windows() -> list[Window]:
    result = [Window("whole", WHOLE)]
    for share in (0.05, 0.1):
        result.append(Window(f"without {share:.0%} at each side", (share, share, 1 - share, 1 - share)))
    for share in (0.05, 0.1, 0.17):
        for number, side in enumerate(("left", "top", "right", "bottom")):
            edges = [abs(edge - share) if place == number else edge for place, edge in enumerate(WHOLE)]
            result.append(Window(f"without {share:.0%} at the {side}", (edges[0], edges[1], edges[2], edges[3])))
    return result + [Window(f"turned by {angle:g} degrees", (0.1, 0.1, 0.9, 0.9), angle) for angle in (1.5, 3.0)]


WINDOWS = tuple(_windows())
LOWEST = sorted(
    ((row, column) for row in range(FREQUENCIES) for column in range(FREQUENCIES) if row + column),
    key=lambda place: (place[0] ** 2 + place[1] ** 2, place[0]),
)[:64]
# Neighbours among the frequencies can flip together, and bands of the bits are compared: duplicates.py.
ROWS, COLUMNS = np.random.default_rng(0).permutation(np.array(LOWEST)).T
MIRROR = int(np.packbits(COLUMNS % 2).view(">u8")[0])  # bits that mirroring flips
WEIGHT = np.where(ROWS > 0, 2.0, 1.0) * np.where(COLUMNS > 0, 2.0, 1.0)  # of a squared cosine's share in the variance


def _cosines(begin: float, end: float) -> Floats:
    """Cosines between two places of [0, 1], integrated over each square of the grey picture, (FREQUENCIES, SIDE)."""
    edges = (np.clip(np.arange(SIDE + 1) / SIDE, begin, end) - begin) / (end - begin)
    frequency = np.pi * np.arange(1, FREQUENCIES)[:, None]
    return np.diff(np.concatenate([edges[None], np.sin(frequency * edges) / frequency]), axis=1)


DOWN = np.stack([_cosines(window.box[1], window.box[3]) for window in WINDOWS])
ACROSS = np.stack([_cosines(window.box[0], window.box[2]).T for window in WINDOWS])


def window_hashes(image: Image.Image) -> bytes | None:
    """The hash of each of WINDOWS, and once more within even borders where the picture has such.

    Returns:
        64-bit numbers, little-endian, 0 for a window that is flat: its hash would be noise and join unrelated
        pictures. None where all of them are.
    """
    grey = image.convert("L")
    boxes = {WHOLE, borders(grey)}
    hashes = np.concatenate([_hashes(grey, box) for box in sorted(boxes, key=lambda box: box != WHOLE)])
    return hashes.astype("<u8").tobytes() if hashes.any() else None


def whole_hash(hashes: bytes | None) -> int | None:
    """The hash of the whole picture among those of `window_hashes`; None where it has none."""
    return int.from_bytes(hashes[:8], "little") or None if hashes else None


def placing(slot: int, inside: Box, size: tuple[int, int]) -> Floats:
    """Where a place of a hashed window lies in its picture, both as shares of width and height, (2, 3).

    Args:
        slot: Number of the hash among those of the picture.
        inside: What the picture's even borders frame.
        size: The picture's width and height in pixels.
    """
    window = WINDOWS[slot % len(WINDOWS)]
    left, top, right, bottom = inside if slot >= len(WINDOWS) else WHOLE
    frame = np.array([[right - left, 0, left], [0, bottom - top, top], [0, 0, 1]])
    left, top, right, bottom = window.box
    part = np.array([[right - left, 0, left], [0, bottom - top, top], [0, 0, 1]])
    aspect = size[0] * frame[0, 0] / (size[1] * frame[1, 1])
    placed: Floats = frame[:2] @ np.vstack([_turning(window.degrees, aspect), [0, 0, 1]]) @ part
    return placed


def borders(grey: Image.Image) -> Box:
    """What even borders of one colour at two opposite sides of a grey picture frame."""
    small = np.asarray(grey.resize((BORDER_SIDE, BORDER_SIDE), Image.Resampling.BOX))
    top, bottom = _inside(small)
    left, right = _inside(small[top:bottom].T)
    return left / BORDER_SIDE, top / BORDER_SIDE, right / BORDER_SIDE, bottom / BORDER_SIDE


def _inside(rows: NDArray[np.uint8]) -> tuple[int, int]:
    """The first row that is no border and the one after the last."""
    even = (np.ptp(rows, axis=1) <= EVEN) & (abs(rows.mean(axis=1) - rows[0].mean()) <= EVEN)
    first, last = int(np.argmin(even)), int(np.argmin(even[::-1]))
    both = first and last and max(first, last) <= MOST_BORDER * len(rows)
    return (first, len(rows) - last) if both else (0, len(rows))


def _hashes(grey: Image.Image, box: Box) -> NDArray[np.uint64]:
    width, height = grey.size
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX, part)
    aspect = (part[2] - part[0]) / (part[3] - part[1])
    spectra = np.empty((len(WINDOWS), FREQUENCIES, FREQUENCIES))
    for degrees in {window.degrees for window in WINDOWS}:
        chosen = [number for number, window in enumerate(WINDOWS) if window.degrees == degrees]
        pixels = np.asarray(_turned(small, degrees, aspect), dtype=np.float64)
        down = (DOWN[chosen].reshape(-1, SIDE) @ pixels).reshape(len(chosen), FREQUENCIES, SIDE)
        spectra[chosen] = down @ ACROSS[chosen]
    lowest = np.ascontiguousarray(spectra[:, ROWS, COLUMNS])
    hashes = np.packbits(lowest > 0, axis=1).view(">u8").ravel()
    return np.where(lowest**2 @ WEIGHT < FLAT**2, 0, hashes)


def _turned(small: Image.Image, degrees: float, aspect: float) -> Image.Image:
    """The small square grey picture of one of width / height `aspect`, turned as that one about its centre."""
    if not degrees:
        return small
    (a, b, c), (d, e, f) = _turning(degrees, aspect).tolist()
    matrix = (a, b, c * SIDE, d, e, f * SIDE)
    return small.transform(small.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _turning(degrees: float, aspect: float) -> Floats:
    """Where a place of the turned picture lies in the picture, both as shares of width and height, (2, 3)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, -sine / aspect], [sine * aspect, cosine]])
    return np.column_stack([turn, 0.5 - turn @ [0.5, 0.5]])
