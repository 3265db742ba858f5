"""How many images a CPU-second ingest prepares, beside other decoders on the same files in the same run.

Files are real photographs, and the same enlarged to 1080p and 12 megapixels, as JPEG. Each peer decodes a file and
gives it the size that ingest stores; in the second table it goes on as ingest does, with the same encoder and hashes.
All take turns, and the best round of each counts, so that a busy machine slows all alike. Beside each stands how far it
is from the transform's version 1, bicubic from the whole picture: more than half a grey level on average is not the
same work, and such a peer is not compared with. The goal is for the whole job. A library that is not installed has no
row.

Run: `python -m benchmarks.ingest`. Peers: `pip install simplejpeg opencv-python-headless pyvips[binary] kornia-rs`, and
torch for the one bicubic filter that is as fast.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from natix_lib.data.decode import MAX_PIXELS, decode
from natix_lib.data.images import encoded, hashed, prepare
from natix_lib.data.listing import list_folder
from natix_lib.steps import ingest
from natix_lib.transform import KEPT, Transform, at_most_shorter_side
from tests.street_sets import ingest_settings

SIDE, ROUNDS = 256, 4
STEP = 10  # times that the step takes the files, so that what it does once weighs little
SAME, GOAL = 0.5, 0.8  # grey levels on average from version 1; share of the fastest that does the same work
SIZES = {"photographs": (None, 60), "1080p": ((1920, 1080), 16), "12 MP": ((4000, 3000), 6)}
OURS = "natix"
Pixels = NDArray[Any]
Decoder = Callable[[bytes], Pixels]


def stored_size(width: int, height: int) -> tuple[int, int]:
    """The size at which ingest stores an image."""
    scale = min(1.0, SIDE / min(width, height))
    return round(width * scale), round(height * scale)


def version_1(content: bytes) -> Pixels:
    """Pillow's bicubic filter from the whole picture."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(image.resize(stored_size(*image.size), Image.Resampling.BICUBIC, reducing_gap=3.0))


def natix(content: bytes) -> Pixels:
    """What ingest does."""
    return np.asarray(at_most_shorter_side(decode(content, MAX_PIXELS, SIDE), SIDE))


def thumbnail(content: bytes) -> Pixels:
    """Pillow's own way to a small picture, which decodes at a reduced scale as well."""
    image = Image.open(io.BytesIO(content))
    image.thumbnail(stored_size(*image.size), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image.convert("RGB"))


def peers() -> Iterator[tuple[str, Decoder]]:
    """Other decoders, as far as they are installed, one thread each."""
    yield "Pillow, whole picture (version 1)", version_1
    yield "Pillow, thumbnail with draft", thumbnail
    with contextlib.suppress(ImportError):
        yield from _with_opencv(importlib.import_module("cv2"), importlib.import_module("simplejpeg"))
    with contextlib.suppress(ImportError):
        yield "simplejpeg at twice the size, torch bicubic", _with_torch()
    with contextlib.suppress(ImportError):
        vips = importlib.import_module("pyvips").Image

        def pyvips(content: bytes) -> Pixels:
            width, height = stored_size(*Image.open(io.BytesIO(content)).size)
            pixels: Pixels = vips.thumbnail_buffer(content, width, height=height, size="force").numpy()
            return pixels

        yield "pyvips, thumbnail", pyvips
    with contextlib.suppress(ImportError):
        kornia = importlib.import_module("kornia_rs")

        def kornia_rs(content: bytes) -> Pixels:
            pixels = np.asarray(kornia.io.decode_image_jpegturbo(content, "rgb"))
            width, height = stored_size(pixels.shape[1], pixels.shape[0])
            return np.asarray(kornia.imgproc.resize(pixels, (height, width), "bicubic"))

        yield "kornia-rs, whole picture, bicubic", kornia_rs


def _with_opencv(cv2: Any, simplejpeg: Any) -> Iterator[tuple[str, Decoder]]:
    cv2.setNumThreads(1)
    scaled = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}

    def area(pixels: Pixels, size: tuple[int, int]) -> Pixels:
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))

    def opencv(content: bytes, kept: int) -> Pixels:
        size = Image.open(io.BytesIO(content)).size
        scale = next((scale for scale in scaled if min(size) // scale >= kept * SIDE), 1)
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), scaled.get(scale, cv2.IMREAD_COLOR))
        return np.asarray(cv2.cvtColor(area(pixels, stored_size(*size)), cv2.COLOR_BGR2RGB))

    def simple(content: bytes) -> Pixels:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        size = stored_size(width, height)
        return area(simplejpeg.decode_jpeg(content, min_width=size[0], min_height=size[1]), size)

    yield "OpenCV reduced to once the size, area", lambda content: opencv(content, 1)
    yield "OpenCV reduced to twice the size, area", lambda content: opencv(content, KEPT)
    yield "simplejpeg scaled, OpenCV's area", simple


def _with_torch() -> Decoder:
    simplejpeg, torch = importlib.import_module("simplejpeg"), importlib.import_module("torch")
    torch.set_num_threads(1)

    def simple(content: bytes) -> Pixels:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        size = stored_size(width, height)
        pixels = simplejpeg.decode_jpeg(content, min_width=KEPT * size[0], min_height=KEPT * size[1], min_factor=2)
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(planes, size=size[::-1], mode="bicubic", antialias=True)
        return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())

    return simple


def whole_job(do: Decoder, content: bytes) -> Any:
    """What ingest does, with another decoder."""
    if do is natix:
        return prepare(content, SIDE, MAX_PIXELS)
    image = Image.fromarray(do(content))
    return hashed(encoded(image), image)


def photographs(folder: Path, size: tuple[int, int] | None, count: int) -> list[bytes]:
    """`count` files, evenly taken; enlarged so that they cover a size and cut to it where one is given."""
    names = list_folder(folder).images
    files = []
    for name in names[:: max(1, len(names) // count)][:count]:
        content = (folder / name).read_bytes()
        if size is not None:
            image = Image.open(io.BytesIO(content)).convert("RGB")
            scale = max(size[0] / image.width, size[1] / image.height)
            whole = (round(image.width * scale), round(image.height * scale))
            buffer = io.BytesIO()
            image.resize(whole, Image.Resampling.BICUBIC).crop((0, 0, *size)).save(buffer, "JPEG", quality=90)
            content = buffer.getvalue()
        files.append(content)
    return files


def rates(work: Mapping[str, Callable[[bytes], object]], files: list[bytes]) -> dict[str, float]:
    """Images a CPU-second of each, its best round of ROUNDS in which all take turns."""
    best = dict.fromkeys(work, 0.0)
    for _, (name, do) in itertools.product(range(ROUNDS), work.items()):
        began = time.process_time()
        for content in files:
            do(content)
        best[name] = max(best[name], len(files) / (time.process_time() - began))
    return best


def whole_ingest(files: list[bytes]) -> float:
    """Images a CPU-second of the step itself, from a folder of classes to its artifacts."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, content in enumerate(STEP * files):
            path = Path(scratch) / "source" / ("None", "Roadwork")[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        out, settings = Path(scratch), ingest_settings(Path(scratch) / "source", resize_shorter_side=SIDE)
        began = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            ingest.run(settings, images=str(out / "i"), index=str(out / "x"), rejects=str(out / "r"))
        return STEP * len(files) / (time.process_time() - began)


def loader(files: list[bytes]) -> dict[str, float]:
    """Evaluation views of stored images a CPU-second, 224 pixels, one view and three."""
    small = [prepare(content, SIDE, MAX_PIXELS).content for content in files]
    work: dict[str, Callable[[bytes], object]] = {}
    for count in (1, 3):
        transform = Transform(224, SIDE, count == 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        work[f"{count} of them"] = partial(views, transform)
    return rates(work, small)


def views(transform: Transform, content: bytes) -> object:
    """What the loader makes of a stored image."""
    return transform(Image.open(io.BytesIO(content)))


def main() -> None:
    """Print the tables; exit with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("NATIX_TEST_DATA", "../shared/data")
    parser.add_argument("--photographs", default=f"{data}/roadwork-real/images", help="folder of images")
    arguments = parser.parse_args()
    decoders = {OURS: natix, **dict(peers())}
    tables = {}
    for title in ("decode and resize", "the whole job: encoded and hashed too"):
        tables[title] = Table(title=f"Images a CPU-second, {title} (grey levels from version 1)")
        for column in ("", *SIZES):
            tables[title].add_column(column, justify="right" if column else "left")
    cells: dict[tuple[str, str], list[str]] = {}
    shares: dict[str, list[float]] = {title: [] for title in tables}
    ingested, viewed = [], ""
    for size, count in SIZES.values():
        files = photographs(Path(arguments.photographs), size, count)
        exact = [version_1(content).astype(float) for content in files]
        away = {
            name: float(np.mean([np.abs(do(one) - pixels).mean() for one, pixels in zip(files, exact, strict=True)]))
            for name, do in decoders.items()
        }
        whole: dict[str, Decoder] = {name: partial(whole_job, do) for name, do in decoders.items()}
        for title, work in zip(tables, (decoders, whole), strict=True):
            measured = rates(work, files)
            fastest = max(rate for name, rate in measured.items() if away[name] <= SAME and name != OURS)
            shares[title].append(measured[OURS] / fastest)
            for name, rate in measured.items():
                cells.setdefault((title, name), []).append(f"{rate:.0f} ({away[name]:.2f})")
            cells.setdefault((title, "natix of the fastest that is the same work"), []).append(
                f"{shares[title][-1]:.2f}"
            )
        ingested.append(f"{whole_ingest(files):.0f}")
        viewed = viewed or ", ".join(f"{name} {rate:.0f}" for name, rate in loader(files).items())
    for (title, name), row in cells.items():
        tables[title].add_row(name, *row)
    tables[title].add_row("natix, the step ingest", *ingested)
    console = Console(width=120)
    for table in tables.values():
        console.print(table)
    console.print(f"Evaluation views of stored photographs, images a CPU-second: {viewed}")
    if min(shares[title]) < GOAL:
        raise SystemExit(f"natix reaches {min(shares[title]):.2f} of the fastest, the goal is {GOAL}")


if __name__ == "__main__":
    main()
