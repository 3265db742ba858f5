"""`natix <step>`: each step on files, made from `contracts.STEPS` and `contracts.RENEWING`.

The options are the artifacts' names and so cannot drift from the components.
"""

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from natix_lib.cli.extras import require_places
from natix_lib.cli.options import ConfigFile, Overrides, path_of
from natix_lib.contracts import ARTIFACTS, RENEWING, STEPS, TASKS
from natix_lib.files import require_new

MAKERS = {artifact: name for name, step in (RENEWING | STEPS).items() for artifact in step.outputs}


def step_command(name: str) -> Callable[..., None]:
    """The function behind `natix <step>`: the step's input artifacts as options, outputs under --output."""
    step = TASKS[name]

    def command(**values: Any) -> None:
        from natix_lib import config
        from natix_lib.config.step_settings import recalibration_settings, step_settings

        loaded = config.load(values["config_file"], values["overrides"] or [])
        require_places(loaded)
        settings = recalibration_settings(loaded) | step_settings(loaded)
        folder: Path = values["output"]
        module = importlib.import_module(f"natix_lib.steps.{name}")  # before anything is written: it may be missing
        outputs = {artifact: str(folder / ARTIFACTS[artifact].file) for artifact in step.outputs}
        for path in outputs.values():
            require_new(Path(path))
        folder.mkdir(parents=True, exist_ok=True)
        paths = {artifact: str(values[artifact]) for artifact in step.inputs if values[artifact]} | outputs
        metrics = module.run(settings[name], **paths)
        typer.echo(json.dumps({"outputs": list(outputs.values()), "metrics": metrics}))

    parameters = [inspect.Parameter("config_file", inspect.Parameter.KEYWORD_ONLY, annotation=ConfigFile)]
    for artifact in step.inputs:
        option = typer.Option(
            _option(artifact), metavar=_kind(artifact), show_default=False, parser=path_of,
            help=f"{ARTIFACTS[artifact].file}, which natix {MAKERS[artifact]} gives"
            f"{'; may be left out' if artifact in step.optional else ''}.",
        )  # fmt: skip
        kind, default = (Path | None, None) if artifact in step.optional else (Path, inspect.Parameter.empty)
        parameters.append(
            inspect.Parameter(
                artifact, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option], default=default
            )
        )
    folder = typer.Option(
        "--output", "-o", metavar="FOLDER", help="Folder that receives the outputs.", show_default=False, parser=path_of
    )
    parameters.append(inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Path, folder]))
    parameters.append(
        inspect.Parameter("overrides", inspect.Parameter.KEYWORD_ONLY, annotation=Overrides, default=None)
    )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def step_takes(name: str) -> str:
    """What a step reads, in words."""
    places = [ARTIFACTS[artifact].file for artifact in TASKS[name].inputs]
    return ", ".join(["a config", *places]) if places else "a config and the source that it names"


def step_gives(name: str) -> str:
    """What a step writes, in words."""
    return (
        f"{', '.join(ARTIFACTS[artifact].file for artifact in TASKS[name].outputs)} below --output; metrics on stdout"
    )


def step_example(name: str) -> str:
    """A command line after the steps before it were run with `-o out`."""
    inputs = [f"{_option(artifact)} out/{ARTIFACTS[artifact].file}" for artifact in TASKS[name].inputs]
    folder = "adapted" if name == "adapt" else "out"  # what fetch gives has the name of what adapt gives
    return " \\\n    ".join([f"natix {name} -c my.yaml -o {folder}", *inputs])


def _option(artifact: str) -> str:
    return f"--{artifact.replace('_', '-')}"


def _kind(artifact: str) -> str:
    return "FOLDER" if ARTIFACTS[artifact].manifest else "FILE"
