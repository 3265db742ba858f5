"""The command line of natix: `app` registers the commands, and each other file holds what belongs together of them."""

from natix_lib.cli.app import app, main

__all__ = ["app", "main"]
