"""review.html: pictures that a person labels by key, one file that reads and sends nothing.

The content security policy names the hashes of the one script and the one style sheet and allows pictures as data, so a
browser runs nothing else in the page and asks no network for anything, whatever the names in it are. Pictures and names
are a block of JSON that no browser runs; `<` in it is an escape, so that no name ends the block.

What the bundle makes of a picture is not shown: who is told an answer looks for it.
"""

import base64
import hashlib
import json
from importlib import resources

from markupsafe import Markup

from natix_lib.files import JsonDict
from natix_lib.reports.pages import templates

KEYS = "123456789abcdfghilmnopqrstvwxyz"  # of the classes; e exports, j and k move, u takes back


def render_review(content: JsonDict) -> str:
    """The page as HTML.

    Args:
        content: `slot`, what the browser keeps the labels under; `file`, what the export is called; `folder`, where it
            must lie, and `next`, what reads it then; `header`, its first line; `classes`, each a `name` and its `cell`
            in the export; `images`, at least one, in the order in which they are asked about, each a `key` by which its
            label is kept, a `name`, its `cell` and `src`, a data URI; `left_out`, how many more there are, and `most`,
            how many a page can hold; `unread`, a `name` and a `reason` of some that could not be taken in, and
            `unread_count`, how many there are.
    """
    pages = templates()
    shared = pages.get_template("style.html.j2").render().strip().removeprefix("<style>").removesuffix("</style>")
    style, script = shared + _text("review.css"), _text("review.js")
    keys = [*KEYS, *[""] * len(content["classes"])]
    return pages.get_template("review.html.j2").render(
        content=content,
        keys=keys,
        keyless=len(content["classes"]) > len(KEYS),
        policy=f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        data=Markup(
            _json({"keys": KEYS, **{name: content[name] for name in ("slot", "file", "header", "classes", "images")}})
        ),
    )


def _text(name: str) -> str:
    return resources.files("natix_lib.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names a script or a style sheet, by all that stands between its tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: JsonDict) -> str:
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
