"""data.html: what natix sees in a data set, one file with nothing outside it."""

from markupsafe import Markup

from natix_lib.contracts import ROLES
from natix_lib.errors import printable
from natix_lib.files import JsonDict
from natix_lib.reports import charts
from natix_lib.reports.render import environment

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
        environment()
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
