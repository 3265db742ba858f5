"""Data sets that have one of everything that the data report shows."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tests.street_sets import write_manifest

EVIL_CLASS = "<b onclick='x()'>Road \"work\"</b>"
EVIL_NAMES = (b"<img src=x onerror=alert(1)>.png", b"\"quotes' & more.png", "صور‮gpj.png".encode(), b"caf\xe9.png")


def noise(*seed: int, size: tuple[int, int] = (56, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(60, 190, (size[1], size[0], 3), dtype=np.uint8))


def write_doubtful(root: Path) -> Path:
    """16 drives of 3 frames; two copies in another drive under another class, one flat, one tiny, one damaged."""
    root.mkdir(parents=True)
    rows = []
    for drive in range(16):
        for frame in range(3):
            name = f"{drive:02d}-{frame}.png"
            noise(drive, frame).save(root / name)
            rows.append(
                {
                    "image": name,
                    "label": "Roadwork" if drive % 2 else "None",
                    "group": f"drive {drive}",
                    "weather": ("sun", "rain", "fog")[frame],
                    "scene": f"drive {drive} frame {frame} of "
                    + ("A Traffic CONE stands" if drive == 4 else "a street"),
                }
            )
    for number, copied in enumerate((0, 2)):
        name = f"copy-{number}.png"
        noise(copied, 0).save(root / name)
        rows.append(
            {**rows[-1], "image": name, "label": "Roadwork", "group": f"copies {number}", "scene": f"c{number}"}
        )
    Image.new("RGB", (80, 60), (90, 90, 90)).save(root / "flat.png")
    noise(77, size=(20, 90)).save(root / "tiny.png")
    whole = root / "whole.jpg"
    noise(78, size=(400, 300)).save(whole, quality=90)
    (root / "damaged.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    for name in ("flat.png", "tiny.png", "damaged.jpg"):
        rows.append({**rows[0], "image": name, "group": name, "scene": name})
    noise(79).save(root / "unlisted.png")
    return write_manifest(root, rows)


def write_evil(root: Path) -> Path:
    """Class folders whose names, and files whose names, are written to break a page."""
    for label, name in enumerate(("None", EVIL_CLASS.replace("/", "\u2215"))):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(8):
            noise(label, number).save(folder / f"{number}.png")
        for number, evil in enumerate(EVIL_NAMES):
            with open(os.path.join(os.fsencode(folder), evil), "wb") as file:  # noqa: PTH118, PTH123 - no text
                noise(number, 1).save(file, "PNG")
        with open(os.path.join(os.fsencode(folder), b"<s>" + EVIL_NAMES[3][:-4] + b".jpg"), "wb") as file:  # noqa: PTH118, PTH123
            file.write(b"no picture")
    return root
