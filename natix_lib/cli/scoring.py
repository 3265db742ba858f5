"""`natix predict` and `natix serve`: a bundle at work."""

import sys
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from natix_lib.cli.options import BundleFolder, is_utf8, path_of, place_of
from natix_lib.errors import ConfigError, DataError
from natix_lib.stopping import stoppable

if TYPE_CHECKING:
    from natix_lib.bundle.pictures import Opener
    from natix_lib.bundle.runtime import Bundle
    from natix_lib.cli.named_images import NamedImage
    from natix_lib.cli.rate import Rate


DRIFTED = 3  # exit code of predict

What = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders (all images below), quoted patterns ('photos/**/*.jpg'), manifests with a column "
        "image (CSV, TSV, JSON, JSON Lines, Parquet; names from the manifest's folder), gs:// and s3:// objects or "
        "prefixes, - for a list on standard input, one a line.",
        metavar="WHAT",
        show_default=False,
    ),
]


def predict(
    what: What,
    bundle: BundleFolder,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write, .csv, .jsonl or .parquet; must not exist. Without it, JSON lines on standard output.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="Exit with 3 when the images differ from those of VAL_CALIB.")
    ] = False,
) -> None:
    """Score images with a bundle: a row for each, in the order in which they were named.

    A row has image, label, probabilities, score, accepted, and set if the policy has sets; of an image that cannot be
    read it has image and error. A summary on standard error ends the call; it says when the images differ from those
    that the policy was calibrated on. Exit code 0: every image was scored; 2: some were not, or nothing could be done;
    3: all were, they differ, and --fail-on-drift was given.
    """
    from natix_lib.bundle.runtime import NOT_WATCHED, Bundle
    from natix_lib.cli.named_images import find_images
    from natix_lib.cli.predictions import json_line, require_output, write_rows
    from natix_lib.cli.rate import Rate

    if output:
        require_output(output)
    found = find_images(what)
    loaded = Bundle.load(bundle)
    drift = loaded.drift()
    if fail_on_drift and drift is None:
        raise ConfigError(f"--fail-on-drift needs a bundle with drift.json, {bundle} has none: export it anew")
    with stoppable(), Rate(found.count, bar=output is not None or not sys.stdout.isatty()) as rate:
        tally = Tally()
        rows = scored_rows(loaded, found.images, tally, rate)
        if output:
            write_rows(output, rows, loaded.class_names)
        else:
            for row in rows:
                typer.echo(json_line(row, ascii_only=not is_utf8()))
        seconds = rate.seconds
    typer.echo(f"{tally.summary(seconds)}\n{loaded.promise}", err=True)
    if drift:
        drift.observe_shuffled(tally.log_odds, tally.classes)
    if drift is None or drift.alarm:
        typer.echo(drift.sentence if drift else NOT_WATCHED, err=True)
    if tally.failed:
        raise typer.Exit(2)
    if fail_on_drift and drift and drift.alarm:
        raise typer.Exit(DRIFTED)


@dataclass
class Tally:
    """What became of the images so far."""

    accepted: int = 0
    to_ask: int = 0
    failed: int = 0
    first_failure: str = ""
    log_odds: "array[float]" = field(default_factory=lambda: array("d"))  # of the predictions, to look for drift
    classes: "array[int]" = field(default_factory=lambda: array("l"))

    def count(self, row: dict[str, Any]) -> None:
        """Count the image of a row."""
        if "error" in row:
            self.failed += 1
            self.first_failure = self.first_failure or f"{row['image']}: {row['error']}"
        elif row["accepted"]:
            self.accepted += 1
        else:
            self.to_ask += 1

    def summary(self, seconds: float) -> str:
        """The counts on one line."""
        images = self.accepted + self.to_ask + self.failed
        first = f"; the first that failed: {DataError(self.first_failure)}" if self.failed else ""
        return (
            f"{images} {'image' if images == 1 else 'images'}: {self.accepted} accepted, {self.to_ask} to ask a person "
            f"about, {self.failed} failed; {images / max(seconds, 1e-9):.1f} images/s{first}"
        )


def scored_rows(
    bundle: "Bundle", images: "Iterable[NamedImage]", tally: Tally, rate: "Rate"
) -> Iterator[dict[str, Any]]:
    """The row of each image, in order, as `predictions.row_of` makes it; each is counted.

    Raises:
        DataError: If there is no image.
        BundleError: As `Bundle.scored`.
    """
    from natix_lib.cli.predictions import row_of

    names: deque[str] = deque()  # of the images that were taken ahead of the model

    def opened() -> "Iterator[Opener]":
        for image in images:
            names.append(image.name)
            yield image.open

    for result in bundle.scored(opened()):
        row = row_of(names.popleft(), result)
        if not isinstance(result, DataError):
            tally.log_odds.append(result.log_odds)
            tally.classes.append(bundle.class_names.index(result.label))
        tally.count(row)
        rate.add()
        yield row
    if not rate.done:
        raise DataError("standard input names no image")


def serve(
    bundle: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Bundle folder, or its gs:// or s3:// address, which is fetched.",
            show_default=False,
            parser=place_of,
        ),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="The model's name in the addresses.")] = "natix",
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is all of them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    drain: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=3600,
            help="How long requests are accepted after SIGTERM; a pod's grace must be 20 s more.",
        ),
    ] = 10,
    sha256: Annotated[
        str,
        typer.Option(
            "--sha256",
            metavar="HASH",
            help="The bundle_sha256 that the bundle must have, as evaluation.json and natix verify name it.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Answer scoring requests with a bundle, in KServe's V1 protocol, until SIGTERM.

    After SIGTERM it is not ready any more and goes on answering for a while, so that none is lost while a cluster takes
    its address back. A second signal ends it at once.
    """
    from natix_lib import grammar, serving
    from natix_lib.cli.extras import CLIENTS, require

    if scheme := grammar.scheme(bundle):
        require(CLIENTS[scheme])
    serving.serve(bundle, name, host, port, drain, sha256)
