"""Calls on a stack of their own.

KFP looks up the source of every frame that it is called from, once for each setting of each task (`inspect.stack`).
Below pytest's frames a pipeline takes seven times as long to compile as below a command's; so tests do it in a thread.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def on_a_short_stack(call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """What the call gives, or raises, made in a thread while this one waits."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *arguments, **named).result()
