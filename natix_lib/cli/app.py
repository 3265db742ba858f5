"""The command line: `natix run`, one command for each step, `predict`, `serve`, `config`, and what a first try needs.

Every error a person can cause is one line on stderr and exit code 2; a traceback is a bug. What a command needs is
imported when it runs, so that help appears at once.
"""

import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from natix_lib import __version__
from natix_lib.cli.audit import audit
from natix_lib.cli.cache import cache
from natix_lib.cli.configs import show_config
from natix_lib.cli.data import data
from natix_lib.cli.doctor import doctor
from natix_lib.cli.drawn import backbone, draw
from natix_lib.cli.extras import missing
from natix_lib.cli.help import STEPS as STEPS_HEADING
from natix_lib.cli.help import Groups, columns, register
from natix_lib.cli.init import init
from natix_lib.cli.pipeline import demo, recalibrate, run
from natix_lib.cli.review import review
from natix_lib.cli.scoring import predict, serve
from natix_lib.cli.steps import step_command, step_example, step_gives, step_takes
from natix_lib.cli.verify import verify
from natix_lib.contracts import RENEWING, STEPS, TASKS
from natix_lib.errors import NatixError

app = typer.Typer(
    cls=Groups,
    help="Labelled street images to a roadwork classifier that can be trusted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

register(
    app, "init", init,
    takes="a folder for each class, a manifest, a table beside images or Parquet; a folder, a gs:// or an s3:// prefix",
    gives="a commented config that natix run takes",
    example="natix init pictures --output street.yaml",
)  # fmt: skip
register(
    app, "run", run,
    takes="a config, and the images and the backbone that it names",
    gives="a folder with the bundle, the report and each step's files; the result on stdout, progress on stderr",
    example="natix run -c my.yaml -o runs/first",
)  # fmt: skip
register(
    app, "recalibrate", recalibrate,
    takes="a bundle, a config, and the new labelled images that it names",
    gives="a folder as natix run gives it, whose bundle has the same model and a policy for the new images",
    example="natix recalibrate --bundle runs/first/bundle -c my.yaml \\\n"
    "    --set data.data_root=november -o runs/november",
)  # fmt: skip
register(
    app, "predict", predict,
    takes="a bundle, and images in files, folders, lists, manifests or buckets",
    gives="one JSON object a line on stdout, or the file --output; the counts and the promise on stderr",
    example="natix predict --bundle runs/first/bundle photos --output predictions.csv",
)  # fmt: skip
register(
    app, "serve", serve,
    takes="a bundle, and images in POST /v1/models/natix:predict",
    gives="answers in JSON, as predict prints them; /metrics for Prometheus",
    example="natix serve --bundle runs/first/bundle --port 8080",
)  # fmt: skip
register(
    app, "review", review,
    takes="a bundle, and images as predict takes them",
    gives="a page that holds the pictures which the policy rejects, for any browser; it exports a manifest of labels",
    example="natix review --bundle runs/first/bundle photos --output review.html",
)  # fmt: skip
register(
    app, "audit", audit,
    takes="a bundle, and a table of images that it accepted with their labels",
    gives="a line on stdout that says whether the promise stands; exit code 3 where it is broken",
    example="natix audit --bundle runs/first/bundle labels.csv",
)  # fmt: skip
register(
    app, "verify", verify,
    takes="a bundle",
    gives="on stdout, a line for each thing that can be said of it; exit code 2 where a check fails",
    example="natix verify --bundle runs/first/bundle",
)  # fmt: skip
register(
    app, "config", show_config,
    takes="a config, or nothing with --explain and --schema",
    gives="the whole config as YAML on stdout, or the explanation, or the schema",
    example="natix config -c my.yaml --set scrc.alpha=0.02\nnatix config --explain scrc.alpha",
)  # fmt: skip
app.add_typer(data, name="data")
app.add_typer(cache, name="cache")
register(
    app, "doctor", doctor,
    takes="this machine as it is, and the addresses given; with --cluster the cluster of the kubeconfig",
    gives="on stdout, a line for each thing; nothing is changed, and what is missing is no error",
    example="natix doctor --bucket gs://bucket/prefix\nnatix doctor --cluster -c my.yaml",
)  # fmt: skip
register(
    app, "draw", draw,
    takes="nothing",
    gives="a folder with images and manifest.csv, for data.data_root",
    example="natix draw -o streets --images 400",
)  # fmt: skip
register(
    app, "backbone", backbone,
    takes="nothing",
    gives="a folder with a backbone in the hub's layout, for model.backbone_id",
    example="natix backbone -o backbone --image-size 224",
)  # fmt: skip
register(
    app, "demo", demo,
    takes="nothing",
    gives="a folder with the data, the backbone, the config, and the run in run/",
    example="natix demo -o demo",
)  # fmt: skip
for _name in (*STEPS, *RENEWING):
    register(
        app, _name, step_command(_name), takes=step_takes(_name), gives=step_gives(_name), example=step_example(_name),
        help=TASKS[_name].does, rich_help_panel=STEPS_HEADING,
    )  # fmt: skip


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Handle the options that need no command; without any, show the help."""
    if version:
        typer.echo(f"natix {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; exit 2 with one line for every error that a person can cause."""
    if sys.stdout is None:  # its number would be given to the next file that is opened
        os.write(2, b"error: standard output is closed: send it to a file or to /dev/null\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that are no text, and terminals that are not UTF-8
    try:
        app(prog_name="natix", terminal_width=columns())
        sys.stdout.flush()
    except NatixError as error:
        _end(error)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in ("natix_lib", "natix_components", "natix_pipelines"):
            raise
        _end(missing(error.name))
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
