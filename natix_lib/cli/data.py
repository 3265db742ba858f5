"""`natix data check`: a data set as ingest and split see it, on a page, before anything is trained.

The steps themselves read and divide it, into a folder that is removed at the end, so that the page cannot say anything
else than a run would. A set that cannot be divided still gets its page, without what only a division tells, and so does
one of which too much is damaged: then the page is needed most. Of no usable image there is nothing to show.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from natix_lib.cli.extras import needing, require_places
from natix_lib.cli.help import Groups, register
from natix_lib.cli.init import filled, place_of, values_of
from natix_lib.cli.options import Overrides, new_file, path_of
from natix_lib.errors import CalibrationError, ConfigError, DataError, NatixError, printable, shortened
from natix_lib.files import JsonDict, write_bytes

if TYPE_CHECKING:
    from natix_lib import config

data = typer.Typer(cls=Groups, help="Look at a data set: natix data check.", no_args_is_help=True)


def check(
    place: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Folder, archive, gs:// or s3:// prefix of labelled images, in place of the config's data.data_root.",
            show_default=False,
        ),
    ] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Page to write; must not exist.")
    ] = "data.html",
    config_file: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--config", "-c", metavar="FILE", help="YAML config.", show_default=False, parser=path_of),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Read and divide a data set as a run would, and write the data report: what is joined, divided, doubtful."""
    from natix_lib.cli.rate import steps_shown
    from natix_lib.config.step_settings import step_settings

    path = new_file(output)
    asked = _config(place, config_file, overrides or [])
    require_places(asked)
    with tempfile.TemporaryDirectory() as scratch, steps_shown():
        refusal, content = _looked_at(step_settings(asked), Path(scratch))
    from natix_lib.reports.data import render_data

    write_bytes(path, render_data(content).encode())
    for line in _lines(content):
        typer.echo(shortened(printable(line)))
    typer.echo(f"report  {output}")
    if refusal is not None:
        raise refusal


def _config(place: str, config_file: Path | None, overrides: list[str]) -> "config.Config":
    """The config, its data at `place` where one is named; without one, what is no matter of data is filled in."""
    from natix_lib import config

    if config_file is not None:
        root = [f"data.data_root={json.dumps(place_of(place))}"] if place else []
        return config.load(config_file, [*overrides, *root])
    if not place:
        raise ConfigError("name the data, as in natix data check pictures, or a config with --config")
    values = values_of(place, overrides)
    values.setdefault("model", {}).setdefault("init_from_explora", values["data"].get("unlabelled") == "adapt")
    return filled(values, "sweep")


def _looked_at(settings: dict[str, JsonDict], scratch: Path) -> tuple[NatixError | None, JsonDict]:
    """Why the data cannot be divided, None where it can, and what the page shows."""
    from natix_lib import config
    from natix_lib.config.step_settings import IngestSettings, SplitSettings
    from natix_lib.data.arrow import read_shards
    from natix_lib.data.index import read_index
    from natix_lib.data.overview import overview
    from natix_lib.data.parts import require_usable
    from natix_lib.data.previous import read_previous
    from natix_lib.data.thumbnails import Thumbnails
    from natix_lib.progress import WARNING, Lines
    from natix_lib.steps import ingest, split

    split_settings = config.parse(SplitSettings, settings["split"])
    earlier = split_settings.split.previous
    previous = read_previous(earlier) if earlier else None  # before an hour of decoding
    ingest_settings = config.parse(IngestSettings, settings["ingest"])
    part, _ = ingest.decode_shard(ingest_settings, None, scratch / "images")
    if not part.table.num_rows:  # no page shows it
        require_usable(part, ingest_settings.data.max_reject_fraction)
    ingest.write(part, str(scratch / "index"))
    index = read_index(scratch / "index")
    images = read_shards(scratch / "images")
    thumbnails = Thumbnails(images)
    try:
        require_usable(part, ingest_settings.data.max_reject_fraction)
        divided = split.divided(index, split_settings, images, previous)
        for warning in divided[0].warnings:
            Lines().say(f"{WARNING}{warning}")
        return None, overview(index, divided, thumbnails)
    except (DataError, CalibrationError) as error:
        return error, overview(index, error, thumbnails)


def _lines(content: JsonDict) -> list[str]:
    """What a person should read where there is no browser."""
    from natix_lib.progress import LONGEST_NAME

    classes = ", ".join(f"{shortened(row['name'], LONGEST_NAME)} {row['images']}" for row in content["classes"][:12])
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
    if kept := content["kept"]:
        lines.append(
            f"kept    {kept['kept']} images as in split.previous, {kept['new']} are new, {kept['gone']} are gone"
        )
    doubts = content["conflicts"]["count"] + content["contradicting"]["count"]
    if doubts:
        lines.append(f"labels  {doubts} to look at")
    return lines


register(
    data, "check", needing("data check", check),
    takes="any layout that ingest reads, or a config that names one",
    gives="a page, and the figures on stdout; exit code 2 where the data cannot be divided, with the page all the same "
    "where any image can be used",
    example="natix data check pictures --output data.html",
)  # fmt: skip
