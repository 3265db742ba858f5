"""What KFP's local runner costs: the same steps called directly, as pipeline tasks, and again from the cache.

The direct side calls `natix_lib.steps.<step>.run` one after another in this process, with its libraries already
imported; every pipeline task is a process of its own and imports what it needs, which is most of the difference.
Run: `make bench`.
"""

import contextlib
import importlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from natix_lib import config
from natix_lib.cli.display import RunDisplay
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.demo.dataset import draw_dataset
from natix_pipelines import local


def run_directly(settings: config.Config, folder: Path) -> None:
    """All steps in this process."""
    per_step = step_settings(settings)
    paths: dict[str, str] = {}
    for name, step in STEPS.items():
        (folder / name).mkdir(parents=True)
        for artifact in step.outputs:
            paths[artifact] = str(folder / name / ARTIFACTS[artifact].file)
        module = importlib.import_module(f"natix_lib.steps.{name}")
        module.run(per_step[name], *(paths[artifact] for artifact in (*step.inputs, *step.outputs)))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_dataset(folder / "data", images=300, seed=0)
        write_untrained_backbone(folder / "backbone", hidden_size=64, layers=2, image_size=64)
        settings = config.load(
            Path(__file__).parent.parent / "pipelines" / "configs" / "demo.yaml",
            [
                f"data.data_root={folder / 'data'}",
                f"model.backbone_id={folder / 'backbone'}",
                "model.image_size=64",
                "training.epochs=10",
            ],
        )
        seconds: dict[str, float] = {}
        with contextlib.redirect_stdout(io.StringIO()):
            run_directly(settings, folder / "warm-up")
        runs: dict[str, Callable[[], None]] = {
            "steps called directly": lambda: run_directly(settings, folder / "direct"),
            "KFP local runner": lambda: run_pipeline(settings, folder, "first"),
            "KFP local runner, all cached": lambda: run_pipeline(settings, folder, "second"),
        }
        for title, call in runs.items():
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                call()
            seconds[title] = time.perf_counter() - start
    table = Table(title=f"the whole pipeline, {len(STEPS)} steps, 300 drawn images")
    for column in ("", "seconds", "against direct calls"):
        table.add_column(column, justify="right")
    direct = seconds["steps called directly"]
    for title, value in seconds.items():
        table.add_row(title, f"{value:.1f}", f"{value - direct:+.1f} s")
    Console().print(table)


def run_pipeline(settings: config.Config, folder: Path, name: str) -> None:
    """The pipeline under KFP's local runner, with a cache that both calls share."""
    with RunDisplay(Console(quiet=True)) as display:
        local.run(settings, folder / name, folder / "cache", display)


if __name__ == "__main__":
    main()
