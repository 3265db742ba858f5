"""data.html: what natix sees in a data set, one file with nothing outside it.

Ids, classes, tags and reasons are other people's text: they are escaped, written without what no screen should be sent,
cut in the middle where they are long, and kept from turning the direction of the words around them.
"""

import re

import jinja2
from markupsafe import Markup, escape

from natix_lib.contracts import ROLES
from natix_lib.errors import printable
from natix_lib.files import JsonDict
from natix_lib.reports import charts
from natix_lib.reports.render import environment

LONGEST = 120  # characters of a name
BREAKS = re.compile(r"(?<=[/_])")  # where a line may end in a name of a file
NARROW_SPACE = "\u202f"  # between thousands: a line never ends there
CLASSES = 60  # rows of a table of classes

RULES = {
    "group": "Drives that the data names",
    "source_id": "One original",
    "place": "Taken at one place",
    "same_pixels": "Equal pixels",
    "near_duplicate": "Near-duplicates",
    "time": "Taken one after the other",
    "name": "Frames that their names number",
    "looks": "Neighbours that look alike",
}


def render_data(content: JsonDict) -> str:
    """The data report as HTML.

    Args:
        content: What `data.overview` gives.
    """
    names = [row["name"] for row in content["classes"]]
    if "counts" in content:
        parts = {role: [content["counts"][role][name] for name in names] for role in ROLES}
    else:
        parts = {"all": [row["images"] for row in content["classes"]]}
    histogram = content["sizes"]["histogram"]
    return (
        pages_of_data()
        .get_template("data.html.j2")
        .render(
            content=content,
            roles=ROLES,
            rules=RULES,
            shown=content["classes"][:CLASSES],
            classes_chart=Markup(charts.stacked([printable(name) for name in names], parts)),
            shapes_chart=Markup(charts.histogram(histogram["edges"], histogram["counts"], "width / height")),
        )
    )


def pages_of_data() -> jinja2.Environment:
    """The templates, with filters for other people's text and for counts."""
    pages = environment()
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
