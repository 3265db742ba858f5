"""Damaged image files of every allowed format, always the same for a seed; run, it feeds them to the decoder.

`python -m tests.data.mutations SEED COUNT` prints one JSON object: how many were refused, what escaped besides
`DataError`, which have another verdict at a reduced scale, the slowest in seconds and the peak memory in megabytes. It
has a process of its own because the peak is the process's, and a decoder that crashes must not take the tests with it.
"""

import io
import json
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natix_lib.data.decode import MAX_PIXELS, decode
from natix_lib.data.images import prepare
from natix_lib.errors import DataError
from natix_lib.transform import Transform

TRANSFORM = Transform(32, 64, True, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SIDES = (9, 2)  # of which a picture of 48 x 36 is decoded at a half and a quarter
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SAVED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "JPEG": [("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"exif": True})],
    "MPO": [("RGB", {"save_all": True})],
    "PNG": [("RGB", {}), ("RGBA", {}), ("P", {}), ("LA", {}), ("1", {}), ("I;16", {}), ("RGB", {"exif": True})],
    "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"exif": True}), ("RGB", {"save_all": True})],
    "BMP": [("RGB", {}), ("L", {}), ("P", {}), ("1", {}), ("RGBA", {})],
    "GIF": [("L", {}), ("P", {}), ("P", {"save_all": True})],
    "TIFF": [
        *[(mode, {}) for mode in ("RGB", "RGBA", "P", "1", "I;16", "I", "F", "CMYK", "LAB", "YCbCr")],
        *[(mode, {"compression": "tiff_lzw"}) for mode in ("RGB", "LA", "I;16", "F", "YCbCr")],
        ("RGB", {"compression": "tiff_adobe_deflate"}),
        ("L", {"compression": "packbits"}),
        ("RGB", {"exif": True, "save_all": True}),
    ],
    "AVIF": [("RGB", {}), ("RGBA", {}), ("RGB", {"exif": True})],
}


def in_mode(mode: str, seed: int = 0) -> Image.Image:
    """A picture of 48 x 36 with structure and noise, in a mode of Pillow."""
    noise = np.random.default_rng(seed).integers(0, 80, (36, 48, 3), dtype=np.uint8)
    image = Image.fromarray(noise + np.arange(0, 144, 3, dtype=np.uint8)[None, :, None])
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image.convert(mode)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert("L").convert(mode) if mode in ("I", "F") else image.convert(mode)


def saved(file_format: str, mode: str, options: dict[str, Any]) -> bytes:
    """A valid file."""
    buffer, options = io.BytesIO(), dict(options)
    if options.get("exif"):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
        options["exif"] = exif
    if options.get("save_all"):
        options["append_images"] = [in_mode(mode, 1), in_mode(mode, 2)]
    in_mode(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def originals() -> list[bytes]:
    """A valid file of every format and mode."""
    return [saved(name, mode, options) for name, kinds in SAVED.items() for mode, options in kinds]


def with_checksums(content: bytes) -> bytes:
    """A PNG whose checksums are right again, so that what was changed is read."""
    result, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        result += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(result + content[place:])


def mutated(files: list[bytes], number: int, generator: np.random.Generator) -> bytes:
    """One of the files with up to four damages: bits, ends, lengths, and blocks removed, doubled or foreign."""
    content = bytearray(files[number % len(files)])
    for _ in range(int(generator.integers(1, 5))):
        reach = len(content) if generator.random() < 0.5 else min(len(content), 400)  # headers are where lengths stand
        place, size = int(generator.integers(0, max(1, reach))), int(generator.integers(1, 64))
        match int(generator.integers(0, 7)):
            case 0 | 1:
                for at in generator.integers(0, max(1, reach), int(generator.integers(1, 6))):
                    content[int(at) : int(at) + 1] = bytes([int(generator.integers(0, 256))])
            case 2:
                if generator.random() < 0.3:
                    del content[place:]
            case 3:
                width, order = int(generator.choice([1, 2, 4, 8])), str(generator.choice(["big", "little"]))
                value = int(generator.choice(EXTREMES)) % 256**width
                content[place : place + width] = value.to_bytes(width, order)
            case 4:
                content[place:place] = content[place : place + size] * int(generator.integers(1, 20))
            case 5:
                del content[place : place + size]
            case 6:
                other = files[int(generator.integers(0, len(files)))]
                start = int(generator.integers(0, len(other)))
                content[place:place] = other[start : start + size]
    whole = bytes(content)
    return with_checksums(whole) if whole.startswith(b"\x89PNG") and generator.random() < 0.7 else whole


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """`count` damaged files, one after another of each original."""
    generator, files = np.random.default_rng(seed), originals()
    for number in range(count):
        yield mutated(files, number, generator)


def peak_megabytes() -> float:
    """Highest memory of this process so far; `ru_maxrss` would begin with the parent's."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def verdict(content: bytes, shorter_side: int | None) -> str | None:
    """Why a file is refused when it may be decoded at a reduced scale; None if it is not."""
    try:
        decode(content, MAX_PIXELS, shorter_side)
    except DataError as error:
        return str(error)
    return None


def main(seed: int, count: int) -> None:
    """Feed damaged files to ingest's and to predict's way."""
    refused, slowest, escaped, differing = 0, 0.0, [], []
    for number, content in enumerate(mutations(seed, count)):
        started = time.perf_counter()
        try:
            verdicts = [verdict(content, side) for side in (None, *SIDES)]
            if len(set(verdicts)) > 1:
                differing.append(f"{number}: {verdicts}")
            prepare(content, 64, MAX_PIXELS)
            prepare(content, SIDES[0], MAX_PIXELS)
            TRANSFORM(decode(content, MAX_PIXELS))
        except DataError:
            refused += 1
        except BaseException as error:
            escaped.append(f"{number}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.perf_counter() - started)
    outcome = {"refused": refused, "escaped": escaped, "differing": differing, "slowest": slowest}
    print(json.dumps({**outcome, "peak_mb": peak_megabytes()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
