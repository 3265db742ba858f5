"""`natix cache`: what `natix run` keeps of finished steps, and how it is removed.

Nothing is asked before a removal: the command names what goes, and what is lost is made again by the next run.
"""

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from natix_lib import run_cache
from natix_lib.cli.help import Groups
from natix_lib.cli.options import CachePlace
from natix_lib.errors import ConfigError, printable
from natix_lib.progress import duration
from natix_lib.run_cache import Kept, size_text

LEFT_OVER = "unfinished"
ID_DIGITS = 8
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

cache = typer.Typer(cls=Groups)


@cache.callback(invoke_without_command=True, epilog="Example:\n\n\b\n  natix cache")
def show(context: typer.Context, folder: CachePlace = None) -> None:
    """List what the cache of natix run holds, or remove some of it: natix cache remove.

    A line for each finished step: its id, size, when it was made and last used, how long it took, and the version of
    natix's code that made it, which alone can use it again. What a run that was killed has left is unfinished. A line
    for each bucket's address whose objects are kept, so that they are not sent again.
    """
    if context.invoked_subcommand is None:
        place = run_cache.place(folder)
        _print(place, run_cache.kept(place))
    elif folder:
        raise ConfigError("--cache belongs behind the sub-command: natix cache remove --cache FOLDER")


@cache.command(
    epilog="Examples:\n\n\b\n  natix cache remove --older-than 30d\n  natix cache remove train\n"
    "  natix cache remove unfinished"
)
def remove(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="NAME", help=f"Steps, addresses, ids, versions of the code, or {LEFT_OVER!r}.", show_default=False
        ),
    ] = None,
    older_than: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="Only what was not used for so long: 12h, 30d, 8w.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the cache holds.")] = False,
    folder: CachePlace = None,
) -> None:
    """Remove finished steps and objects of buckets, by name, age or all; the next run makes again what it needs.

    Nothing is removed while a run is at work with this cache.
    """
    if not (names or older_than is not None or everything):
        raise ConfigError(
            f"name what to remove: a step, an id, a version of the code, {LEFT_OVER}, --older-than 30d or --all"
        )
    if everything and (names or older_than is not None):
        raise ConfigError("--all removes all: give no name and no --older-than beside it")
    seconds = _seconds(older_than) if older_than is not None else 0.0
    place = run_cache.place(folder)
    chosen = run_cache.kept(place)
    if names:
        for name in names:
            if not any(_is(each, name) for each in chosen):
                raise ConfigError(f"the cache {place} holds nothing that is called {name}: natix cache lists it")
        chosen = [each for each in chosen if any(_is(each, name) for name in names)]
    now = time.time()
    chosen = [each for each in chosen if now - each.used >= seconds]
    freed = run_cache.remove(place, chosen, logs=everything) if chosen or (everything and place.exists()) else 0
    typer.echo(f"removed {len(chosen)} of the cache {place}, {size_text(freed)} freed")


def _is(each: Kept, name: str) -> bool:
    """Whether a name that a person gave is meant for this step."""
    if name == LEFT_OVER:
        return not each.key
    if name == each.step or name == each.record.get("code", "")[:ID_DIGITS]:
        return bool(each.key)
    return len(name) >= ID_DIGITS and each.key.startswith(name)


def _is_bucket(each: Kept) -> bool:
    from natix_lib import grammar  # pydantic, which help has no need of

    return bool(each.key) and grammar.scheme(each.step) is not None


def _seconds(text: str) -> float:
    """A length of time in seconds: a whole number and one of m, h, d, w.

    Raises:
        ConfigError: If it is something else.
    """
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) < 7 and unit in UNITS):
        raise ConfigError(f"--older-than must be a number and m, h, d or w, such as 30d, got {text!r}")
    return float(int(number) * UNITS[unit])


def _print(place: Path, entries: list[Kept]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not entries:
        console.print(f"the cache {place} is empty", markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="")
    for title in ("step", "id", "size", "made", "last used", "took", "code"):
        table.add_column(title, justify="right" if title in ("size", "took") else "left", no_wrap=True)
    now = time.time()
    for each in entries:
        took = duration(each.record["seconds"]) if "seconds" in each.record else ""
        made = _ago(now, each.made) if each.made is not None else ""
        code = str(each.record.get("code", ""))[:ID_DIGITS]
        name = each.key[:ID_DIGITS] or LEFT_OVER
        table.add_row(printable(each.step), name, size_text(each.size), made, _ago(now, each.used), took, code)
    console.print(table, soft_wrap=False, width=max(console.width, 100))
    console.print(f"\n{summary(entries)} in {place}", markup=False)


def summary(entries: list[Kept]) -> str:
    """How much of each kind a cache holds, and the size of all of it."""
    left, buckets = [each for each in entries if not each.key], [each for each in entries if _is_bucket(each)]
    total = f"{len(entries) - len(left) - len(buckets)} finished steps"
    if buckets:
        total += f", objects of {len(buckets)} buckets ({size_text(sum(each.size for each in buckets))})"
    if left:
        total += f" and {len(left)} unfinished ({size_text(sum(each.size for each in left))})"
    return f"{total}, {size_text(sum(each.size for each in entries))}"


def _ago(now: float, then: float) -> str:
    return "now" if now - then < 2 else f"{duration(now - then)} ago"
