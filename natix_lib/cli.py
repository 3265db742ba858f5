"""The command line: `natix run`, one command for each step, `predict`, `serve`, `config`, and what a first try needs.

The commands of the steps are made from `contracts.STEPS`, so their options are the artifacts' names and cannot drift
from the components. Every error a person can cause is one line on stderr and exit code 2; a traceback is a bug.
"""

import importlib
import importlib.resources
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import yaml
from rich.console import Console

from natix_lib import __version__, config
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_lib.errors import ConfigError, DataError, NatixError
from natix_lib.files import require_new
from natix_lib.step_settings import step_settings

app = typer.Typer(
    help="Labelled street images to a roadwork classifier that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
STEP_PANEL = "Steps, one at a time on files"

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="YAML config.", show_default=False)]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--set", "-s", help="section.key=value, over the config; may be repeated.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must not exist.", show_default=False)]

DrawnImages = Annotated[int, typer.Option("--images", min=50, help="Images to draw.")]
DrawnClasses = Annotated[int, typer.Option("--classes", help="2 or 13.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")]


@app.command()
def run(
    config_file: ConfigFile,
    output: Output,
    overrides: Overrides = None,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where finished steps are kept for the next run; default ~/.cache/natix."),
    ] = None,
) -> None:
    """Run the whole pipeline here, under KFP's local runner."""
    settings = config.load(config_file, overrides or [])
    _run_pipeline(settings, output, cache, "the same command")


def _run_pipeline(settings: config.Config, output: Path, cache: Path | None, again: str) -> None:
    """Run the pipeline; `again` is the command that goes on when this one is told to stop."""
    try:
        from pipelines import local
    except ModuleNotFoundError as error:
        if error.name != "kfp":
            raise
        raise ConfigError("running the pipeline needs KFP: pip install 'natix[pipelines]'") from error
    from natix_lib.cli_progress import RunDisplay
    from natix_lib.stopping import stoppable

    try:
        with stoppable(), RunDisplay(Console(file=sys.stderr)) as display:
            local.run(settings, output, cache, display)
    except SystemExit:
        typer.echo(f"stopped: {again} goes on after the last step that is done", err=True)
        raise
    _print_result(output)


def _print_result(output: Path) -> None:
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
    console.print(f"\nbundle  {output / 'bundle' / 'bundle.json'}\nreport  {output / 'report.html'}")


def _with_interval(metric: dict[str, Any]) -> str:
    if metric["value"] is None:
        return "none accepted"
    text = f"{metric['value']:.3f}"
    if metric.get("low") is not None:
        text += f"  [{metric['low']:.3f}, {metric['high']:.3f}]"
    return text


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    bundle: Annotated[Path, typer.Option(help="Bundle folder.", show_default=False)],
) -> None:
    """Print one JSON object a line for each image: image, label, probabilities, score, accepted, and its set if any."""
    from natix_lib.bundle.runtime import BATCH, Bundle
    from natix_lib.data.images import open_image

    loaded = Bundle.load(bundle)
    failures = 0
    for start in range(0, len(images), BATCH):
        opened = []
        for path in images[start : start + BATCH]:
            try:
                opened.append((path, open_image(path)))
            except DataError as error:
                failures += 1
                typer.echo(f"error: {error}", err=True)
        for (path, _), found in zip(opened, loaded.predict(image for _, image in opened), strict=True):
            typer.echo(json.dumps({"image": str(path), **found.document()}, ensure_ascii=False))
    if failures:
        raise typer.Exit(2)


@app.command()
def serve(
    bundle: Annotated[Path, typer.Option(help="Bundle folder.", show_default=False)],
    name: Annotated[str, typer.Option(help="The model's name in the addresses.")] = "natix",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
) -> None:
    """Answer scoring requests with a bundle, in KServe's V1 protocol, until SIGTERM."""
    try:
        from natix_lib import serving
    except ModuleNotFoundError as error:
        if error.name not in ("anyio", "starlette", "uvicorn"):
            raise
        raise ConfigError("serving needs starlette and uvicorn: pip install 'natix[serve]'") from error
    serving.serve(bundle, name, host, port)


@app.command("config")
def show_config(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Check a config and print it with every default filled in."""
    resolved = config.load(config_file, overrides or [])
    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def draw(
    output: Output,
    images: DrawnImages = 1600,
    classes: DrawnClasses = 2,
    seed: Seed = 0,
) -> None:
    """Draw a synthetic street data set: drives of near-duplicate frames, with and without roadwork."""
    from natix_lib.data.synthetic import draw_dataset

    require_new(output)
    draw_dataset(output, images=images, classes=classes, seed=seed)
    typer.echo(f"{output / 'manifest.csv'}")


@app.command()
def backbone(
    output: Output,
    seed: Seed = 0,
    hidden_size: Annotated[int, typer.Option(min=64, help="Width, a multiple of 64.")] = 192,
    layers: Annotated[int, typer.Option(min=1)] = 4,
    patch_size: Annotated[int, typer.Option(min=1, help="Pixels.")] = 16,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels, a multiple of the patch.")] = 112,
) -> None:
    """Write a small DINOv3 with random weights, for a try without the hub."""
    from natix_lib.backbones.untrained import write_untrained_backbone

    write_untrained_backbone(output, seed, hidden_size, layers, patch_size, image_size)
    typer.echo(str(output))


@app.command()
def demo(
    output: Output,
    images: DrawnImages = 1600,
    classes: DrawnClasses = 2,
    seed: Seed = 0,
) -> None:
    """Draw data, make a backbone, run the whole pipeline on them: a few minutes on two cores, no network."""
    from natix_lib.data.street_scene import ROADWORK

    require_new(output)
    output.mkdir(parents=True)
    draw(output / "data", images, classes, seed)
    backbone(output / "backbone", seed)
    template = importlib.resources.files("pipelines") / "configs" / "demo.yaml"
    values = yaml.safe_load(template.read_text(encoding="utf-8"))
    values["data"]["data_root"] = str(output / "data")
    values["model"]["backbone_id"] = str(output / "backbone")
    values["model"]["num_classes"] = classes
    if classes > 2:
        values["data"]["positive_classes"] = sorted(ROADWORK)
    path = output / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    again = f"natix run -c {path} -o {output / 'run'} --cache {output / 'cache'}"
    _run_pipeline(config.load(path), output / "run", output / "cache", again)


def _add_step(name: str) -> None:
    """Register `natix <step>`: the step's input artifacts as options, outputs under --output."""
    step = STEPS[name]

    def command(**values: Any) -> None:
        settings = step_settings(config.load(values["config_file"], values["overrides"] or []))
        folder: Path = values["output"]
        outputs = [folder / ARTIFACTS[artifact].file for artifact in step.outputs]
        for path in outputs:
            require_new(path)
        folder.mkdir(parents=True, exist_ok=True)
        inputs = [str(values[artifact]) for artifact in step.inputs]
        module = importlib.import_module(f"natix_lib.steps.{name}")
        metrics = module.run(settings[name], *inputs, *map(str, outputs))
        typer.echo(json.dumps({"outputs": [str(path) for path in outputs], "metrics": metrics}))

    parameters = [inspect.Parameter("config_file", inspect.Parameter.KEYWORD_ONLY, annotation=ConfigFile)]
    for artifact in step.inputs:
        option = typer.Option(f"--{artifact.replace('_', '-')}", help=ARTIFACTS[artifact].file, show_default=False)
        parameters.append(
            inspect.Parameter(artifact, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Path, option])
        )
    folder = typer.Option("--output", "-o", help="Folder that receives the outputs.", show_default=False)
    parameters.append(inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Path, folder]))
    parameters.append(
        inspect.Parameter("overrides", inspect.Parameter.KEYWORD_ONLY, annotation=Overrides, default=None)
    )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    takes, gives = (", ".join(names) or "the config's source" for names in (step.inputs, step.outputs))
    app.command(name, help=f"{takes} -> {gives}", rich_help_panel=STEP_PANEL)(command)


for _name in STEPS:
    _add_step(_name)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Handle the options that need no command."""
    if version:
        typer.echo(f"natix {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; exit 2 with one line for every error that a person can cause."""
    try:
        app()
    except NatixError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a disk that is full, a place that may not be written
        typer.echo(f"error: {error.filename or 'file'}: {error.strerror or error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
