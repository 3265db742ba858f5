"""`natix data check`: a data set as ingest and split see it, on a page, before anything is trained.

The steps themselves read and divide it, into a folder that is removed at the end, so that the page cannot say anything
else than a run would. A set that cannot be divided still gets its page, without what only a division tells, and so does
one of which too much is damaged: then the page is needed most.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natix_lib.cli.extras import needing, require_places
from natix_lib.cli.help import Groups, register
from natix_lib.cli.init import place_of
from natix_lib.cli.options import Overrides, path_of
from natix_lib.errors import CalibrationError, ConfigError, DataError, NatixError
from natix_lib.files import JsonDict, require_new, write_bytes

if TYPE_CHECKING:
    from natix_lib import config

data = typer.Typer(cls=Groups, help="Look at a data set: natix data check.", no_args_is_help=True)


def check(
    place: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder or gs://bucket/prefix of labelled images.", show_default=False)
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Page to write; must not exist.")
    ] = "data.html",
    overrides: Overrides = None,
) -> None:
    """Read and divide a data set as a run would, and write the data report: what is joined, divided, doubtful."""
    from natix_lib.cli.rate import steps_shown
    from natix_lib.config.step_settings import step_settings

    path = path_of(output)
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{output} exists: name another file as --output, or remove it")
    require_new(path)
    asked = _config(place, overrides or [])
    require_places(asked)
    with tempfile.TemporaryDirectory() as scratch, steps_shown():
        refusal, content = _looked_at(step_settings(asked), Path(scratch))
    from natix_lib.reports.data import render_data

    write_bytes(path, render_data(content).encode())
    for line in _lines(content):
        typer.echo(line)
    typer.echo(f"report  {output}")
    if refusal is not None:
        raise refusal


def _config(place: str, overrides: list[str]) -> "config.Config":
    """A config of the data at `place`; what is no matter of data is filled in."""
    from natix_lib import config
    from natix_lib.config.load import assign
    from natix_lib.survey.machine import SMALL

    values: JsonDict = {"data": {"data_root": place_of(place)}}
    for override in overrides:
        assign(values, override)
    values.setdefault("model", {}).setdefault("backbone_id", SMALL.name)
    values["model"].setdefault("init_from_explora", values["data"].get("unlabelled") == "adapt")
    values.setdefault("export", {}).setdefault("policy", "sweep")
    return config.parse(config.Config, values)


def _looked_at(settings: dict[str, JsonDict], scratch: Path) -> tuple[NatixError | None, JsonDict]:
    """Why the data cannot be divided, None where it can, and what the page shows."""
    from natix_lib import config
    from natix_lib.config.step_settings import SplitSettings
    from natix_lib.data.arrow import read_shards
    from natix_lib.data.index import read_index
    from natix_lib.data.overview import overview, row_numbers
    from natix_lib.data.thumbnails import Thumbnails
    from natix_lib.progress import WARNING, Lines
    from natix_lib.steps import ingest, split

    most = settings["ingest"]["data"]["max_reject_fraction"]
    settings["ingest"]["data"]["max_reject_fraction"] = 1.0
    files = {name: str(scratch / name) for name in ("images", "index", "rejects")}
    ingest.run(settings["ingest"], **files)
    index = read_index(files["index"])
    images = read_shards(Path(files["images"]))
    thumbnails = Thumbnails(images, row_numbers(index))
    try:
        rejected, rows = index.document["rejected"], len(index) + index.document["rejected"]
        if rejected > most * rows:
            raise DataError(f"{rejected} of {rows} images cannot be used, more than data.max_reject_fraction {most:g}")
        divided = split.divided(index, config.parse(SplitSettings, settings["split"]), images)
        for warning in divided[0].warnings:
            Lines().say(f"{WARNING}{warning}")
        return None, overview(index, divided, thumbnails)
    except (DataError, CalibrationError) as error:
        return error, overview(index, error, thumbnails)


def _lines(content: JsonDict) -> list[str]:
    """What a person should read where there is no browser."""
    classes = ", ".join(f"{row['name']} {row['images']}" for row in content["classes"][:12])
    lines = [f"images  {content['images']}, {content['rejected']} rejected: {classes}"]
    if content["refusal"]:
        return lines
    largest = f"the largest holds {content['largest_share']:.0%}"
    lines.append(f"groups  {content['groups']}, {content['alone']} of one image, {largest}")
    joined = ", ".join(f"{rule['rule']} {rule['links']}" for rule in content["joined"])
    lines.append(f"joined  {joined or 'nothing'}")
    achieved, target = content["ratios"]["achieved"], content["ratios"]["target"]
    splits = (
        f"{role} {sum(content['counts'][role].values())} ({share:.1%} for {target[role]:.1%})"
        for role, share in achieved.items()
    )
    lines.append(f"splits  {', '.join(splits)}")
    doubts = content["conflicts"]["count"] + content["contradicting"]["count"]
    if doubts:
        lines.append(f"labels  {doubts} to look at")
    return lines


register(
    data, "check", needing("data check", check),
    takes="a folder for each class, a manifest, a table beside images or Parquet; a folder or a gs:// prefix",
    gives="a page, and the figures on stdout; exit code 2 where the data cannot be divided, with the page all the same",
    example="natix data check pictures --output data.html",
)  # fmt: skip
