"""The command line: `natix run`, one command for each step, `predict`, `serve`, `config`, and what a first try needs.

The commands of the steps are made from `contracts.STEPS`, so their options are the artifacts' names and cannot drift
from the components. Every error a person can cause is one line on stderr and exit code 2; a traceback is a bug.

Paths are taken as text and checked by `_path`, because pathlib turns `gs://bucket` into the folder `gs:/bucket`.
"""

import codecs
import importlib
import importlib.resources
import importlib.util
import inspect
import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
import yaml
from rich.console import Console

from natix_lib import __version__, config, grammar
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_lib.errors import ConfigError, DataError, NatixError
from natix_lib.files import require_new
from natix_lib.strict_yaml import read_yaml

app = typer.Typer(
    help="Labelled street images to a roadwork classifier that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
STEP_PANEL = "Steps, one at a time on files"
EXTRAS = {  # package to the extra of natix that brings it; any other comes with natix itself
    "kfp": "pipelines",
    "kubeflow": "nodes",
    "google": "gcs",
    "anyio": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}
OF_A_RUN = ("torch", "transformers", "datasets", "onnx", "onnxscript", "onnxruntime", "sklearn", "matplotlib", "kfp")


def _path(text: str) -> Path:
    """A local path that a person has typed."""
    if text in ("", "-"):
        raise ConfigError(f"a path must name a file or folder, got {text!r}")
    try:
        path = Path(grammar.local_path(text))
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or a device might never end
            raise ConfigError(f"{text} is neither a file nor a folder")
    except ValueError as error:
        raise ConfigError(f"{text} {error}") from error
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ConfigError(f"{text}: {error.strerror}") from error
    return path


def _image(text: str) -> Path:
    """An image file that a person has typed; a folder is refused before the bundle is opened."""
    path = _path(text)
    if path.is_dir():
        raise ConfigError(f"{text} is a folder: name its files, {path / '*.jpg'}")
    return path


ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="YAML config.", show_default=False, parser=_path)]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--set", "-s", help="section.key=value, over the config; may be repeated.", show_default=False),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder to write; must not exist.", show_default=False, parser=_path),
]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="Bundle folder.", show_default=False, parser=_path)]

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
        typer.Option(help="Where finished steps are kept for the next run; default ~/.cache/natix.", parser=_path),
    ] = None,
) -> None:
    """Run the whole pipeline here, under KFP's local runner."""
    settings = config.load(config_file, overrides or [])
    _run_pipeline(settings, output, cache, "the same command")


def _run_pipeline(settings: config.Config, output: Path, cache: Path | None, again: str) -> None:
    """Run the pipeline; `again` is the command that goes on when this one is told to stop."""
    from natix_lib.cli_progress import RunDisplay
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


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False, parser=_image)],
    bundle: BundleFolder,
) -> None:
    """Print one JSON object a line for each image: image, label, probabilities, score, accepted, and its set if any."""
    from natix_lib.bundle.runtime import BATCH, Bundle
    from natix_lib.data.decode import open_image

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
        for (path, _), prediction in zip(opened, loaded.predict(image for _, image in opened), strict=True):
            typer.echo(json.dumps({"image": str(path), **prediction.document()}, ensure_ascii=not _is_utf8()))
    if failures:
        raise typer.Exit(2)


@app.command()
def serve(
    bundle: BundleFolder,
    name: Annotated[str, typer.Option(help="The model's name in the addresses.")] = "natix",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
) -> None:
    """Answer scoring requests with a bundle, in KServe's V1 protocol, until SIGTERM."""
    _require("anyio", "starlette", "uvicorn")
    from natix_lib import serving

    serving.serve(bundle, name, host, port)


@app.command("config")
def show_config(
    key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Key or section that --explain explains; without it, all keys.", show_default=False),
    ] = None,
    config_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", "-c", help="YAML config.", show_default=False, parser=_path),
    ] = None,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what keys mean, instead.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print a JSON Schema for editors, instead.")] = False,
) -> None:
    """Check a config and print it with every default filled in, each key explained."""
    if (config_file is not None) + explain + schema != 1 or (overrides and not config_file) or (key and not explain):
        raise ConfigError("natix config takes --config FILE [--set section.key=value], --explain [KEY] or --schema")
    if explain:
        from natix_lib.config.explain import explanation, overview

        typer.echo(explanation(key) if key else overview())
    elif schema:
        from natix_lib.config.schema import schema as json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
    elif config_file:
        from natix_lib.config.commented import commented

        typer.echo(commented(config.load(config_file, overrides or []), any_character=_is_utf8()), nl=False)


@app.command()
def draw(
    output: Output,
    images: DrawnImages = 1600,
    classes: DrawnClasses = 2,
    seed: Seed = 0,
) -> None:
    """Draw a synthetic street data set: drives of near-duplicate frames, with and without roadwork."""
    from natix_lib.demo.dataset import draw_dataset

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
    from natix_lib.demo.backbone import write_untrained_backbone

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
    from natix_lib.demo.street_scene import ROADWORK

    _require(*OF_A_RUN)
    require_new(output)
    draw(output / "data", images, classes, seed)
    backbone(output / "backbone", seed)
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


def _add_step(name: str) -> None:
    """Register `natix <step>`: the step's input artifacts as options, outputs under --output."""
    step = STEPS[name]

    def command(**values: Any) -> None:
        settings = step_settings(config.load(values["config_file"], values["overrides"] or []))
        folder: Path = values["output"]
        module = importlib.import_module(f"natix_lib.steps.{name}")  # before anything is written: it may be missing
        outputs = {artifact: str(folder / ARTIFACTS[artifact].file) for artifact in step.outputs}
        for path in outputs.values():
            require_new(Path(path))
        folder.mkdir(parents=True, exist_ok=True)
        paths = {artifact: str(values[artifact]) for artifact in step.inputs} | outputs
        metrics = module.run(settings[name], **paths)
        typer.echo(json.dumps({"outputs": list(outputs.values()), "metrics": metrics}))

    parameters = [inspect.Parameter("config_file", inspect.Parameter.KEYWORD_ONLY, annotation=ConfigFile)]
    for artifact in step.inputs:
        option = typer.Option(
            f"--{artifact.replace('_', '-')}", help=ARTIFACTS[artifact].file, show_default=False, parser=_path
        )
        parameters.append(
            inspect.Parameter(artifact, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Path, option])
        )
    folder = typer.Option("--output", "-o", help="Folder that receives the outputs.", show_default=False, parser=_path)
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


def _require(*packages: str) -> None:
    """Refuse to begin what a missing package would end."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package)


def _missing(module: str) -> ConfigError:
    package = module.partition(".")[0]
    extra = f"[{EXTRAS[package]}]" if package in EXTRAS else ""
    return ConfigError(f"the package {package} is missing here: pip install 'natix{extra}'")


def _is_utf8() -> bool:
    """Whether stdout can hold any character; where it cannot, they are written as escapes."""
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"


def main() -> None:
    """Run the command line; exit 2 with one line for every error that a person can cause."""
    if sys.stdout is None:  # its number would be given to the next file that is opened
        os.write(2, b"error: standard output is closed: send it to a file or to /dev/null\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that are no text, and terminals that are not UTF-8
    try:
        app()
        sys.stdout.flush()
    except NatixError as error:
        _end(error)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in ("natix_lib", "natix_components", "natix_pipelines"):
            raise
        _end(_missing(error.name))
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:  # a disk that is full, a place that may not be written
        if error.filename is None:
            _discard_output()
        _end(NatixError(f"{error.filename or 'cannot write the output'}: {error.strerror or error}"))


def _end(error: NatixError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    sys.exit(2)


def _discard_output() -> None:
    """Let what Python still holds for stdout go nowhere, so that it does not fail once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
