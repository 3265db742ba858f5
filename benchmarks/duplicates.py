"""Near-duplicates found and wrong, by kind of change, beside imagehash and imagededup.

Every photograph drawn from a folder with a manifest of groups gets a changed copy; a method has found it when it joins
the two, directly or through others. Precision is the share of pairs that a method joins in the whole folder, unchanged,
which have one group or are copies of one picture: those were looked at by eye and stand in SAME. `wrong components`
counts what joins two groups but for these. imagehash and imagededup join pairs at their usual thresholds (pHash, dHash
and wHash 10 of 64 bits in imagehash's examples, 10 in imagededup's). imagededup's CNN needs weights that it downloads,
and is left out; its hashes use nothing of torchvision, which stands in the way of importing it beside a torch without
CUDA, so an empty module of that name is put in its place. Run: `python -m benchmarks.duplicates --data FOLDER`.
"""

import argparse
import csv
import importlib.util
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from natix_lib.config import Split
from natix_lib.data.duplicates import near_duplicates
from natix_lib.data.windows import window_hashes

BITS = Split().near_duplicate_bits
USUAL = 10  # of 64 bits, the peers' threshold
SAME = {(10, 138), (13, 143), (24, 72), (33, 40), (65, 197), (80, 145)}  # numbers of tracon: one picture, by eye
Change = Callable[[Image.Image], Image.Image]


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    """Without these shares of the sides."""
    return lambda image: image.crop(
        (
            round(image.width * left),
            round(image.height * top),
            round(image.width * (1 - right)),
            round(image.height * (1 - bottom)),
        )
    )


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def bar(image: Image.Image) -> Image.Image:
    """A dark bar of 15 % at the bottom."""
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, image.height * 0.85, image.width, image.height), fill=(20, 20, 20))
    return image


def stamped(image: Image.Image) -> Image.Image:
    """Date and time on black, as dashboard cameras write it."""
    image, size = image.copy(), image.height // 14
    draw = ImageDraw.Draw(image)
    draw.rectangle((image.width * 0.02, image.height * 0.9, image.width * 0.62, image.height * 0.97), fill=(0, 0, 0))
    place = (image.width * 0.03, image.height * 0.905)
    draw.text(place, "2024-06-11 14:03:27  52 km/h", fill=(255, 255, 255), font_size=size)
    return image


def letterboxed(image: Image.Image) -> Image.Image:
    """Black above and below, or at the sides of an upright picture, to a square."""
    side = max(image.size)
    return ImageOps.pad(image, (side, side if image.width != image.height else side * 4 // 3))


def reflected(image: Image.Image) -> Image.Image:
    """Turned by 3 degrees, its corners filled with what lies beside them."""
    margin = max(image.size) // 8
    padded = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    turned = Image.fromarray(padded).rotate(-3, Image.Resampling.BICUBIC)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


CHANGES: dict[str, Change] = {
    "JPEG quality 10": lambda image: Image.open(io.BytesIO(jpeg(image, 10))),
    "resized to 25 %": lambda image: image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS),
    "brightness +40 %": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "brightness -40 %": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
    "crop 5 % each side": cropped(0.05, 0.05, 0.05, 0.05),
    "crop 10 % each side": cropped(0.1, 0.1, 0.1, 0.1),
    "crop 5 % left": cropped(0.05, 0, 0, 0),
    "crop 10 % right": cropped(0, 0, 0.1, 0),
    "crop 10 % top": cropped(0, 0.1, 0, 0),
    "bar of 15 %": bar,
    "timestamp": stamped,
    "letterbox": letterboxed,
    "turned 3 degrees, black corners": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "turned -3 degrees, reflected corners": reflected,
}


def opened(content: bytes) -> Image.Image:
    """A file's image."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def ours(files: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs that natix joins."""
    hashes = [window_hashes(opened(content)) for content in files]
    alone, none = np.arange(len(files)), np.full(len(files), -1)
    links = near_duplicates(
        hashes, alone, np.zeros_like(alone), none, BITS, lambda row: Image.open(io.BytesIO(files[row]))
    ).links
    return [(int(row), int(links.to[row])) for row in links.rows]


def near(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows of bits that differ in at most USUAL."""
    signed = np.where(hashes, 1, -1).astype(np.int32)
    a, b = np.nonzero(np.triu((64 - signed @ signed.T) // 2 <= USUAL, 1))
    return list(zip(a.tolist(), b.tolist(), strict=True))


def components(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """Number of the component of each of `count` files that pairs join, directly or through others, (count,)."""
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    numbers: np.ndarray = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(count, count)))[1]
    return numbers


def methods() -> dict[str, Callable[[Sequence[bytes]], list[tuple[int, int]]]]:
    """Name to what gives the pairs that a method joins."""
    import imagehash

    if importlib.util.find_spec("torchvision") is None:
        for part in ("", ".models", ".models.vision_transformer", ".transforms"):
            sys.modules[f"torchvision{part}"] = MagicMock()
    hashing: Any = importlib.import_module("imagededup.methods.hashing")
    dedup = hashing.PHash(verbose=False)

    def by(function: Callable[[Image.Image], Any]) -> Callable[[Sequence[bytes]], list[tuple[int, int]]]:
        return lambda files: near(np.array([np.ravel(function(opened(content)).hash) for content in files]))

    def by_imagededup(files: Sequence[bytes]) -> list[tuple[int, int]]:
        codes = [int(dedup.encode_image(image_array=np.asarray(opened(content))), 16) for content in files]
        return near(np.array([[code >> bit & 1 for bit in range(64)] for code in codes]))

    return {
        "natix": ours,
        "imagehash pHash": by(imagehash.phash),
        "imagehash dHash": by(imagehash.dhash),
        "imagehash wHash": by(imagehash.whash),
        "imagededup PHash": by_imagededup,
    }


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data")) / "roadwork-real"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--images", type=int, default=200, help="photographs that are changed")
    options = parser.parse_args()
    rows = list(csv.DictReader((options.data / "manifest.csv").read_text().splitlines()))
    files = [(options.data / row["image"]).read_bytes() for row in rows]
    chosen = np.random.default_rng(0).permutation(len(files))[: options.images].tolist()
    compared = methods()
    table = Table("change", *compared, title=f"found, % of {len(chosen)} photographs")
    for name, change in CHANGES.items():
        pair = [files[row] for row in chosen]
        pair += [jpeg(change(opened(content)), 90) for content in pair]
        wanted = [(number, number + len(chosen)) for number in range(len(chosen))]
        found = [
            sum(joined[a] == joined[b] for a, b in wanted)
            for joined in (components(method(pair), len(pair)) for method in compared.values())
        ]
        table.add_row(name, *(f"{100 * count / len(chosen):.1f}" for count in found))
    Console().print(table)
    table = Table("method", "pairs joined", "precision", "wrong pairs", "CPU s", title=f"{len(files)} photographs")
    for name, method in compared.items():
        start = time.process_time()
        pairs = method(files)
        wrong = [pair for pair in pairs if not _one_scene(rows[pair[0]], rows[pair[1]])]
        share = 1 - len(wrong) / max(len(pairs), 1)
        table.add_row(name, str(len(pairs)), f"{share:.3f}", str(len(wrong)), f"{time.process_time() - start:.1f}")
    Console().print(table)


def _one_scene(a: dict[str, str], b: dict[str, str]) -> bool:
    """Whether two rows have one group or are one picture."""
    numbers = sorted(int(row["image"].split("_")[-1].split(".")[0]) for row in (a, b) if row["source"] == "tracon")
    return a["group"] == b["group"] or tuple(numbers) in SAME


if __name__ == "__main__":
    main()
