"""`natix predict` beside the bare decoder and the bare runtime, on the same photographs in the same run.

The decoder alone opens each file with Pillow, converts it to RGB and resizes it to the size that the model takes, one
after another in one thread and in as many threads as natix takes. The runtime alone is onnxruntime on tensors that lie
ready. Both together, one after the other on all cores, is what a scorer without any cost of its own would reach that
does nothing at the same time; `natix predict` decodes while it scores and can be faster. It is the command itself, in a
process of its own, its start and its checks of the bundle included. All take turns, part by part of the photographs, so
that a busy machine slows all of them alike. Run: `python -m benchmarks.predict --bundle demo/run/bundle`.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from natix_lib.bundle.runtime import BATCH, Bundle
from natix_lib.bundle.session import INPUT, open_session
from natix_lib.cpus import cpu_threads
from natix_lib.data.listing import list_folder

PARTS = 5  # of the photographs, in each of which all take their turn
GOAL = 0.9  # of what decoder and runtime reach one after the other


def link_photographs(source: Path, folder: Path, count: int) -> list[Path]:
    """`count` names in `folder` that lead to the photographs of `source`, each as often as is needed."""
    images = itertools.cycle([source / name for name in list_folder(source).images])
    links = []
    for number, image in zip(range(count), images, strict=False):
        links.append(folder / f"{number:06d}{image.suffix}")
        links[-1].symlink_to(image.resolve())
    return links


def main() -> None:
    """Print the table; exit with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, help="bundle folder")
    data = os.environ.get("NATIX_TEST_DATA", "../shared/data")
    parser.add_argument("--photographs", default=f"{data}/roadwork-real/images", help="folder of images")
    parser.add_argument("--images", type=int, default=5000, help="images to score")
    arguments = parser.parse_args()
    bundle, threads = Bundle.load(arguments.bundle), cpu_threads()
    transform = bundle.transform
    session = open_session(
        Path(arguments.bundle) / bundle.manifest["model"]["onnx"], transform.image_size, len(bundle.class_names)
    )
    views = transform.view_count
    batch = np.random.default_rng(0).normal(size=(BATCH * views, 3, *[transform.image_size] * 2)).astype(np.float32)

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.convert("RGB").resize((transform.image_size * views, transform.image_size), Image.Resampling.BICUBIC)

    seconds = {"decoder, 1 thread": 0.0, f"decoder, {threads} threads": 0.0, "runtime": 0.0, "natix predict": 0.0}
    one, many, runtime, predict = seconds
    inner = 0.0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(threads) as pool:
        folder = Path(scratch) / "images"
        folder.mkdir()
        links = link_photographs(Path(arguments.photographs), folder, arguments.images)
        size = -(-len(links) // PARTS)
        for start in range(0, len(links), size):
            part = links[start : start + size]
            began = time.perf_counter()
            for path in part:
                decode(path)
            seconds[one] += time.perf_counter() - began
            began = time.perf_counter()
            list(pool.map(decode, part))
            seconds[many] += time.perf_counter() - began
            began = time.perf_counter()
            for first in range(0, len(part), BATCH):
                session.run(None, {INPUT: batch[: views * len(part[first : first + BATCH])]})
            seconds[runtime] += time.perf_counter() - began
            output = Path(scratch) / f"{start}.csv"
            began = time.perf_counter()
            command = [sys.executable, "-m", "natix_lib.cli", "predict", "--bundle", arguments.bundle, "-"]
            listed = "".join(f"{path}\n" for path in part)
            done = subprocess.run([*command, "-o", str(output)], input=listed, capture_output=True, text=True)
            seconds[predict] += time.perf_counter() - began
            rate = re.search(r"([0-9.]+) images/s", done.stderr)
            assert done.returncode == 0 and rate, done.stderr
            inner += len(part) / float(rate[1])
    least = seconds[many] + seconds[runtime]
    count = arguments.images
    table = Table("what", "images/s", "ms an image", "x predict", title=f"{count} photographs, {threads} threads")
    for name, taken in {
        **seconds, "natix predict, without its start": inner, "decoder and runtime, one after the other": least,
    }.items():  # fmt: skip
        table.add_row(name, f"{count / taken:.1f}", f"{1e3 * taken / count:.2f}", f"{seconds[predict] / taken:.2f}")
    Console(width=110).print(table)
    met = inner <= least / GOAL
    print(f"goal, without its start at least {GOAL} of both one after the other: {'met' if met else 'MISSED'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
