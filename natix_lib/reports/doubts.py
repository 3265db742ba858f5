"""label_doubts.html: labels of TRAIN that are likely wrong, one file with nothing outside it.

Rows stand in the page, from which ids are copied, and in no CSV beside it: nobody should take out a label whose picture
he has not seen.
"""

from natix_lib.files import JsonDict
from natix_lib.reports.render import environment

KINDS = 20  # rows of the table of classes


def render_doubts(content: JsonDict) -> str:
    """The page of doubtful labels as HTML.

    Args:
        content: What `steps.doubtful` gives.
    """
    return environment().get_template("doubts.html.j2").render(content=content, kinds=content["kinds"][:KINDS])
