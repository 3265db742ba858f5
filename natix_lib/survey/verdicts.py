"""A row of what `natix doctor --cluster` says: what was looked at, a verdict, what was seen, and what to do.

"falls short" is said only of what surely ends or hangs a run: a pod that no node holds and no autoscaler could make one
for, a secret that a pod waits for; `make submit` then sends nothing. "partly" is said of what runs, but not as the
config or a reader would think. "not seen" is what rights hide, or what an autoscaler may still bring.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from natix_lib.errors import NatixError

HOLDS, PARTLY, SHORT, NOT_SEEN = "holds", "partly", "falls short", "not seen"


@dataclass(frozen=True)
class Row:
    """A judgement.

    Attributes:
        what: What was looked at.
        verdict: HOLDS, PARTLY, SHORT or NOT_SEEN.
        seen: What was seen, or why nothing was.
        todo: What to do, with the key of the config where there is one; "" where it holds.
    """

    what: str
    verdict: str
    seen: str
    todo: str = ""


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines, verdict first, in columns; what a cluster has answered is made one line without secrets."""
    width = max((len(row.what) for row in rows), default=0)
    texts = [NatixError(f"{row.seen}{row.todo and ': ' + row.todo}") for row in rows]
    return [f"{row.verdict:<11}  {row.what:<{width}}  {text}" for row, text in zip(rows, texts, strict=True)]
