"""`natix config`: a config checked and shown, and its keys explained."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from natix_lib.cli.options import Overrides, is_utf8, path_of
from natix_lib.errors import ConfigError


def show_config(
    key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="KEY", help="Key or section that --explain explains; without it, all keys.", show_default=False
        ),
    ] = None,
    config_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", "-c", metavar="FILE", help="YAML config.", show_default=False, parser=path_of),
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
        from natix_lib import config
        from natix_lib.config.commented import commented

        typer.echo(commented(config.load(config_file, overrides or []), any_character=is_utf8()), nl=False)
