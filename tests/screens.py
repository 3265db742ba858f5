"""Writes docs/screens.md: what a terminal of 80 columns shows of `natix run`, from real runs on drawn images.

The runs are made in an empty folder with relative paths, so that no machine's paths stand in the document.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import terminal

COLUMNS = 80
NATIX = [sys.executable, "-m", "natix_lib.cli"]
CONFIG = """\
data: {data_root: images, dataloader: {num_workers: 0}}
split: {ratios: {train: 0.4, val_select: 0.2, val_calib: 0.2, test: 0.2}}
model: {backbone_id: backbone, image_size: 112}
scrc: {alpha: 0.2, on_infeasible: empirical}
export: {policy: calibrate}
"""
RUN = "natix run -c my.yaml -o runs/first --cache cache"
PIPED = "natix run -c my.yaml -o runs/third --cache cache -s evaluate.seed=1"
FAILS = "natix run -c my.yaml -o runs/second --cache cache -s scrc.alpha=0.01 -s scrc.on_infeasible=fail"
PAGE = """\
# What `natix run` shows

Real runs on {images} drawn images with a random backbone, on a terminal of {columns} columns; `make screens` writes
this page anew. The last two lines of a run at work are redrawn; what stands above them stays. In a pipe, a log of a CI
and a dumb terminal the same comes as plain lines, when a step begins and ends, and every 30 s between.

## At work
`{run}`
```
{reading}
```
Later, in train:
```
{training}
```

## Done
```
{done}
```

## The same command with another output folder: from the cache
```
{cached}
```

## A run that fails
`{fails}`
```
{failed}
```

## In a pipe, with another evaluation
`{pipes} 2>&1 | cat`
```
{piped}
```
"""


def main() -> None:
    """Make the runs and write the page that the command line names."""
    page, images = Path(sys.argv[1]).resolve(), 240
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(terminal.ROOT), os.environ.get("PYTHONPATH", "")])
        for command in (f"draw --output images --images {images}", "backbone --output backbone"):
            subprocess.run([*NATIX, *command.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "my.yaml").write_text(CONFIG)
        done = written(folder, RUN)
        failed = written(folder, FAILS, code=2)
        cached = written(folder, RUN.replace("first", "again"))
        piped = subprocess.run(arguments(PIPED), cwd=folder, capture_output=True, text=True, check=True)
    content = PAGE.format(
        images=images,
        columns=COLUMNS,
        run=RUN,
        fails=FAILS,
        reading=shown(terminal.while_at_work(done, r"ingest .*images .*/")),
        training=shown(terminal.while_at_work(done, r"train .*features of TRAIN .*/")),
        done=shown(done),
        cached=shown(cached),
        failed=shown(failed),
        pipes=PIPED,
        piped=piped.stderr.rstrip(),
    )
    page.write_text(content, encoding="utf-8")


def arguments(command: str) -> list[str]:
    """What runs a command that begins with `natix`."""
    return [*NATIX, *command.split()[1:]]


def written(folder: Path, command: str, code: int = 0) -> str:
    """What a run writes on a terminal; it must end with `code`."""
    ended, text = terminal.run(arguments(command), COLUMNS, folder)
    assert ended == code, text
    return text


def shown(text: str) -> str:
    """The screen as text."""
    return "\n".join(terminal.screen(text, COLUMNS))


if __name__ == "__main__":
    main()
