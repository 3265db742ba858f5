"""`natix run` and `natix demo`: the whole pipeline here, with its progress and its result."""

import importlib.resources
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from natix_lib.cli import drawn
from natix_lib.cli.extras import require_places
from natix_lib.cli.options import CachePlace, ConfigFile, Output, Overrides, Seed, place_of
from natix_lib.contracts import ARTIFACTS, RECALIBRATION
from natix_lib.files import require_new

if TYPE_CHECKING:
    from natix_lib.config import Config


def run(
    config_file: ConfigFile,
    output: Output,
    overrides: Overrides = None,
    cache: CachePlace = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the steps, what is cached and a time estimate; run nothing.")
    ] = False,
) -> None:
    """Run the whole pipeline here, under KFP's local runner."""

    def load() -> "Config":
        from natix_lib import config

        settings = config.load(config_file, overrides or [])
        require_places(settings)
        return settings

    if dry_run:
        from natix_pipelines.dry_run import report

        typer.echo("\n".join(report(load(), output, cache)))
        return
    _run_pipeline(load, output, cache, "the same command")


def recalibrate(
    config_file: ConfigFile,
    output: Output,
    bundle: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            show_default=False,
            parser=place_of,
            help="Bundle whose policy is renewed: its folder or its address in a bucket.",
        ),
    ],
    overrides: Overrides = None,
    cache: CachePlace = None,
) -> None:
    """Renew a bundle's policy with new labelled images, without training, under KFP's local runner.

    The config is one of a training, with the new images as data.data_root. Groups that hold an image which the bundle's
    model was fitted on, or one that looks the same, are left out and counted.
    """

    def load() -> "Config":
        from natix_lib import config

        settings = config.load(config_file, [*(overrides or []), f"recalibrate.bundle={bundle}"])
        require_places(settings)
        return settings

    def start(settings: "Config") -> "tuple[list[str], Callable[..., None]]":
        from natix_pipelines import local

        return list(RECALIBRATION), local.recalibrate

    _run_pipeline(load, output, cache, "the same command", start)


def demo(
    output: Output,
    images: drawn.DrawnImages = 1600,
    classes: drawn.DrawnClasses = 2,
    seed: Seed = 0,
) -> None:
    """Draw data and run the whole pipeline on them: a minute or two on two cores, no network."""
    import yaml

    from natix_lib import config
    from natix_lib.demo.street_scene import ROADWORK
    from natix_lib.strict_yaml import read_yaml

    require_new(output)
    drawn.draw(output / "data", images, classes, seed)
    template = importlib.resources.files("natix_pipelines") / "configs" / "demo.yaml"
    values = read_yaml(template.read_bytes(), template.name)
    values["data"]["data_root"] = str(output / "data")
    values["model"]["num_classes"] = classes
    if classes > 2:
        values["data"]["positive_classes"] = sorted(ROADWORK)
        values |= {"split": {}, "scrc": {"alpha": 0.3}}  # thirteen classes are not learnt from few
        values["model"]["image_size"] = 64
    path = output / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    again = f"natix run -c {path} -o {output / 'run'} --cache {output / 'cache'}"
    _run_pipeline(lambda: config.load(path), output / "run", output / "cache", again)


def _training(settings: "Config") -> "tuple[list[str], Callable[..., None]]":
    """The steps of a training, and what runs them."""
    from natix_pipelines import local
    from natix_pipelines.training import steps_of

    return steps_of(settings.model.init_from_explora, settings.data.shards), local.run


def _run_pipeline(
    load: Callable[[], "Config"],
    output: Path,
    cache: Path | None,
    again: str,
    start: "Callable[[Config], tuple[list[str], Callable[..., None]]]" = _training,
) -> None:
    """Run the pipeline that `start` gives; `again` is the command that goes on when this one is told to stop."""
    from rich.console import Console

    from natix_lib.stopping import stoppable

    try:
        with stoppable():
            from natix_lib.cli.display import RunDisplay

            settings = load()
            steps, run_steps = start(settings)
            with RunDisplay(Console(file=sys.stderr), steps) as display:
                run_steps(settings, output, cache, display)
    except SystemExit:
        if not (output / ARTIFACTS["report"].file).exists():  # else it came too late: the run is whole
            typer.echo(f"stopped: {again} goes on after the last step that is done", err=True)
            raise
    _print_result(output, display.summary())


def _print_result(output: Path, summary: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from natix_lib.cli.screen import say

    evaluation = json.loads((output / "evaluate" / ARTIFACTS["evaluation"].file).read_text(encoding="utf-8"))
    metrics, baseline = evaluation["metrics"], evaluation["baseline"]
    bundle, report = (output / ARTIFACTS[name].file for name in ("bundle", "report"))
    console = Console(highlight=False)
    lines = ["", f"TEST, {evaluation['n']} images in {evaluation['groups']} groups, read once through the bundle:"]
    for name, title in (
        ("accuracy", "accuracy"),
        ("macro_f1", "macro-F1"),
        ("mcc", "MCC"),
        ("coverage", "coverage"),
        ("selective_risk", "error of accepted"),
    ):
        lines.append(f"  {title:<18}{_with_interval(metrics[name])}")
    lines.append(f"  {'majority class':<18}{_with_interval(baseline['accuracy'])} (always {baseline['class']})")
    lines += ["", f"promise   {evaluation['policy']['promise']}"]
    if warnings := evaluation["warnings"]:
        first = next((line for line in warnings if evaluation["policy"]["promise"] not in line), None)
        more = f"; the first beside the promise: {first}" if first else ""
        lines.append(f"warnings  {len(warnings)}, the first lines of the report{more}")
    say(console, "\n".join([*lines, f"time      {summary}"]), indent=10)
    for title, path in (("bundle", bundle), ("report", report)):
        console.print(Text(f"{title:<10}{path}"), soft_wrap=True)


def _with_interval(metric: dict[str, Any]) -> str:
    if metric["value"] is None:
        return "none accepted"
    text = f"{metric['value']:.3f}"
    if metric.get("low") is not None:
        text += f" [{metric['low']:.3f}, {metric['high']:.3f}]"
    return text
