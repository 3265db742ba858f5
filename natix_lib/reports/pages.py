"""What every page is made with: templates that escape, and filters for other people's text and for counts.

Without matplotlib, so that a page without a plot can be made where nothing but scoring is installed. Ids, classes, tags
and reasons are other people's text: they are escaped, written without what no screen should be sent, cut in the middle
where they are long, and kept from turning the direction of the words around them.
"""

import re

import jinja2
from markupsafe import Markup, escape

from natix_lib.errors import printable

LONGEST = 120  # characters of a name
BREAKS = re.compile(r"(?<=[/_])")  # where a line may end in a name of a file
NARROW_SPACE = "\u202f"  # between thousands: a line never ends there


def templates() -> jinja2.Environment:
    """The templates: everything is escaped, and a name that is not given is an error."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("natix_lib.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(name=_name, words=printable, thousands=_thousands)
    return pages


def _name(text: object) -> Markup:
    """Other people's text in its own direction."""
    plain = printable(str(text))
    if len(plain) > LONGEST:
        plain = f"{plain[: LONGEST // 2]}…{plain[-LONGEST // 2 :]}"
    breaking = Markup("<wbr>").join(escape(part) for part in BREAKS.split(plain))
    return Markup("<bdi>{}</bdi>").format(breaking)


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", NARROW_SPACE)
