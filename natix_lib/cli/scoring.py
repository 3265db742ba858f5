"""`natix predict` and `natix serve`: a bundle at work."""

import json
from pathlib import Path
from typing import Annotated

import typer

from natix_lib.cli.extras import require
from natix_lib.cli.options import BundleFolder, is_utf8, path_of
from natix_lib.errors import ConfigError, DataError


def image_of(text: str) -> Path:
    """An image file that a person has typed; a folder is refused before the bundle is opened."""
    path = path_of(text)
    if path.is_dir():
        raise ConfigError(f"{text} is a folder: name its files, {path / '*.jpg'}")
    return path


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False, parser=image_of)],
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
            typer.echo(json.dumps({"image": str(path), **prediction.document()}, ensure_ascii=not is_utf8()))
    if failures:
        raise typer.Exit(2)


def serve(
    bundle: BundleFolder,
    name: Annotated[str, typer.Option(help="The model's name in the addresses.")] = "natix",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
) -> None:
    """Answer scoring requests with a bundle, in KServe's V1 protocol, until SIGTERM."""
    require("anyio", "starlette", "uvicorn")
    from natix_lib import serving

    serving.serve(bundle, name, host, port)
