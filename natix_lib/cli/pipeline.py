"""`natix run` and `natix demo`: the whole pipeline here, with its progress and its result."""

import importlib.resources
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from natix_lib.cli import drawn
from natix_lib.cli.extras import OF_A_RUN, require
from natix_lib.cli.options import ConfigFile, Output, Overrides, Seed, path_of
from natix_lib.contracts import ARTIFACTS
from natix_lib.files import require_new

if TYPE_CHECKING:
    from natix_lib.config import Config


def run(
    config_file: ConfigFile,
    output: Output,
    overrides: Overrides = None,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where finished steps are kept for the next run; default ~/.cache/natix.", parser=path_of),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the steps, what is cached and a time estimate; run nothing.")
    ] = False,
) -> None:
    """Run the whole pipeline here, under KFP's local runner."""
    from natix_lib import config

    settings = config.load(config_file, overrides or [])
    if dry_run:
        from natix_pipelines.dry_run import report

        typer.echo("\n".join(report(settings, output, cache)))
        return
    _run_pipeline(settings, output, cache, "the same command")


def demo(
    output: Output,
    images: drawn.DrawnImages = 1600,
    classes: drawn.DrawnClasses = 2,
    seed: Seed = 0,
) -> None:
    """Draw data, make a backbone, run the whole pipeline on them: a few minutes on two cores, no network."""
    import yaml

    from natix_lib import config
    from natix_lib.demo.street_scene import ROADWORK
    from natix_lib.strict_yaml import read_yaml

    require(*OF_A_RUN)
    require_new(output)
    drawn.draw(output / "data", images, classes, seed)
    drawn.backbone(output / "backbone", seed)
    template = importlib.resources.files("natix_pipelines") / "configs" / "demo.yaml"
    values = read_yaml(template.read_bytes(), template.name)
    values["data"]["data_root"] = str(output / "data")
    values["model"]["backbone_id"] = str(output / "backbone")
    values["model"]["num_classes"] = classes
    if classes > 2:
        values["data"]["positive_classes"] = sorted(ROADWORK)
    path = output / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    again = f"natix run -c {path} -o {output / 'run'} --cache {output / 'cache'}"
    _run_pipeline(config.load(path), output / "run", output / "cache", again)


def _run_pipeline(settings: "Config", output: Path, cache: Path | None, again: str) -> None:
    """Run the pipeline; `again` is the command that goes on when this one is told to stop."""
    from natix_lib.cli.display import RunDisplay
    from natix_lib.stopping import stoppable
    from natix_pipelines import local

    try:
        with stoppable(), RunDisplay(Console(file=sys.stderr)) as display:
            local.run(settings, output, cache, display)
    except SystemExit:
        typer.echo(f"stopped: {again} goes on after the last step that is done", err=True)
        raise
    _print_result(output)


def _print_result(output: Path) -> None:
    bundle = ARTIFACTS["bundle"]
    evaluation = json.loads((output / "evaluate" / ARTIFACTS["evaluation"].file).read_text(encoding="utf-8"))
    metrics, baseline = evaluation["metrics"], evaluation["baseline"]
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\nTEST, {evaluation['n']} images, read once through the bundle:")
    for name, title in (
        ("accuracy", "accuracy"),
        ("macro_f1", "macro-F1"),
        ("mcc", "MCC"),
        ("coverage", "coverage"),
        ("selective_risk", "error rate of accepted"),
    ):
        console.print(f"  {title:<24}{_with_interval(metrics[name])}")
    console.print(f"  {'majority class':<24}{_with_interval(baseline['accuracy'])}  (always {baseline['class']})")
    if warnings := evaluation["warnings"]:
        console.print(
            f"\n{len(warnings)} warnings, the first lines of the report; the first: {warnings[0]}", markup=False
        )
    console.print(f"\nbundle  {output / bundle.file / bundle.manifest}\nreport  {output / ARTIFACTS['report'].file}")


def _with_interval(metric: dict[str, Any]) -> str:
    if metric["value"] is None:
        return "none accepted"
    text = f"{metric['value']:.3f}"
    if metric.get("low") is not None:
        text += f"  [{metric['low']:.3f}, {metric['high']:.3f}]"
    return text
