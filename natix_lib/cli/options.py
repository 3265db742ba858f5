"""The options that several commands share, and how what a person types becomes a path.

Paths are taken as text and checked by `path_of`, because pathlib turns `gs://bucket` into the folder `gs:/bucket`.
"""

import codecs
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from natix_lib.errors import ConfigError
from natix_lib.files import require_new


def path_of(text: str) -> Path:
    """A local path that a person has typed.

    Raises:
        ConfigError: If it can name no file or folder, or names a pipe or a device.
    """
    from natix_lib import grammar  # here, because it brings pydantic, and help has no path to check

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


def place_of(text: str) -> str:
    """A local path or a bucket's address that a person has typed.

    Raises:
        ConfigError: As `path_of`, or if an address names no place in a bucket.
    """
    from natix_lib import grammar

    if not grammar.scheme(text):
        return str(path_of(text))
    try:
        return grammar.place(text)
    except ValueError as error:
        raise ConfigError(f"{text} {error}") from error


def new_file(text: str) -> Path:
    """The path of a file to write, as a person has typed it for --output.

    Raises:
        ConfigError: As `path_of`, or if something is there or it lies below a file.
    """
    path = path_of(text)
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{text} exists: name another file as --output, or remove it")
    require_new(path)
    return path


ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="YAML config.", show_default=False, parser=path_of)
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", show_default=False,
        help="A config key as section.key=value, over the config; may be repeated.",
    ),
]  # fmt: skip
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Folder to write; must not exist.", show_default=False, parser=path_of
    ),
]
BundleFolder = Annotated[
    Path, typer.Option("--bundle", metavar="FOLDER", help="Bundle folder.", show_default=False, parser=path_of)
]
CachePlace = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--cache",
        metavar="FOLDER",
        help="Where finished steps are kept for the next run; default ~/.cache/natix.",
        show_default=False,
        parser=path_of,
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed gives the same bytes.")]


def is_utf8() -> bool:
    """Whether stdout can hold any character; where it cannot, they are written as escapes."""
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
