"""The page of a review as text: what a browser may do with it, what stands in it, and the worst of names."""

import base64
import hashlib
import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from natix_lib.reports.review import KEYS, render_review
from tests.data_sets import EVIL_CLASS
from tests.reports.test_data_page import Page

EVIL = "</script><script>alert(1)</script><!--\u2028'\"\\&amp;"


def review_content(images: int = 3, classes: tuple[str, ...] = ("None", EVIL_CLASS), **changes: Any) -> dict[str, Any]:
    """The content of a page of so many pictures."""
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480), (120, 90, 40)).save(buffer, "JPEG")
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {
        "slot": "natix review 1",
        "file": "reviewed-1.csv",
        "folder": f"/data/{'long_folder_name/' * 8}<i>x</i>",
        "next": f"natix data check '/data/{'x' * 120}<i>x</i>' --set data.manifest=reviewed-1.csv",
        "header": "image,label\n",
        "classes": [{"name": name, "cell": f'"{name}"'} for name in classes],
        "images": [
            {"key": str(number), "name": f"{EVIL}{number}{'y' * 150}.jpg", "cell": f'"{EVIL}{number}"', "src": source}
            for number in range(images)
        ],
        "left_out": 1234,
        "most": 1000,
        "unread": [{"name": f"{EVIL}{'z' * 200}", "reason": "<b>no</b> such file"}],
        "unread_count": 5,
        **changes,
    }


def data_of(html: str) -> dict[str, Any]:
    """The block of data of a page, as its script reads it."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert block
    return json.loads(block[1])


def shown_pictures(html: str) -> list[bytes]:
    """The JPEGs of a page, in order."""
    sources = [image["src"].partition(",") for image in data_of(html)["images"]]
    assert all(start == "data:image/jpeg;base64" for start, _, _ in sources)
    return [base64.b64decode(content, validate=True) for _, _, content in sources]


def test_the_policy_allows_the_script_and_the_style_of_the_page_and_no_network() -> None:
    html = render_review(review_content())
    (policy,) = [
        values["content"] for tag, values in Page(html).tags if values.get("http-equiv") == "Content-Security-Policy"
    ]
    allowed = dict(part.split(" ", 1) for part in str(policy).split("; "))
    hashes = {
        tag: [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        ]
        for tag in ("script", "style")
    }
    assert {"script-src": [allowed.pop("script-src")], "style-src": [allowed.pop("style-src")]} == {
        "script-src": hashes["script"], "style-src": hashes["style"],
    }  # fmt: skip
    assert allowed == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    assert html.index("Content-Security-Policy") < html.index("<style>") < html.index("<script")


def test_nothing_in_the_page_is_outside_it_and_no_element_has_a_script_or_a_style_of_its_own() -> None:
    for tag, values in Page(render_review(review_content())).tags:
        assert not [name for name in values if name.startswith("on") or name in ("style", "srcdoc", "action")], tag
        assert values.get("src") is None and values.get("href") in (None, "#unread"), (tag, values)


def test_names_are_text_and_come_to_the_script_as_they_are() -> None:
    content = review_content()
    html = render_review(content)
    tags = [tag for tag, _ in Page(html).tags]
    assert tags.count("script") == 2 and not {"i", "b"} & {*tags}
    data = data_of(html)
    assert data == {"keys": KEYS, **{name: content[name] for name in ("slot", "file", "header", "classes", "images")}}
    assert "<b>no</b> such file" in Page(html).text and "5" in Page(html).text and "4 more." in Page(html).text


def test_every_class_has_a_key_that_nothing_else_has_as_long_as_there_are_keys() -> None:
    html = render_review(review_content(classes=tuple(f"class {number}" for number in range(33))))
    buttons = [values for tag, values in Page(html).tags if tag == "button"]
    keys = [str(values["aria-keyshortcuts"]).split() for values in buttons if "aria-keyshortcuts" in values]
    every = [key for each in keys for key in each]
    assert len(every) == len({*every}) and [key for (key,) in keys[:31]] == list("123456789abcdfghilmnopqrstvwxyz")
    assert [values.get("aria-pressed") for values in buttons[:34]] == ["false"] * 33 + [None]
    assert every[31:] == ["ArrowLeft", "k", "ArrowRight", "j", "Space", "u", "e"]
    assert "Classes without a key" in html and "Classes without a key" not in render_review(review_content())


@pytest.mark.parametrize(("images", "heading"), [(1, "1 picture for a person"), (200, "200 pictures for a person")])
def test_the_page_says_how_many_and_how_many_not(images: int, heading: str) -> None:
    text = Page(render_review(review_content(images))).text
    assert heading in text and "1\u202f234 more are left out of this page: --limit takes in up to 1\u202f000" in text
    whole = Page(render_review(review_content(images, left_out=0, unread_count=0, unread=[]))).text
    assert "left out of this page" not in whole and "Not taken in" not in whole
