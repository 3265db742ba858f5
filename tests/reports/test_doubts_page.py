import base64
import io
from typing import Any

from PIL import Image

from natix_lib.reports.doubts import render_doubts
from tests.data_sets import EVIL_CLASS
from tests.reports.test_data_page import Page


def doubtful_labels(pictures: int, rows: int, **changes: Any) -> dict[str, Any]:
    """The content of a page of so many pictures and rows, with names that are as bad as names can be."""
    buffer = io.BytesIO()
    Image.new("RGB", (160, 90), (120, 90, 40)).save(buffer, "JPEG")
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    every = [
        {
            "id": f"a/folder/with_a_long_name/{'x' * 90}<b>{row}</b>.jpg",
            "given": EVIL_CLASS,
            "suggested": "Roadwork",
            "probability": {"given": 0.02 + row / 1000, "suggested": 0.9 - row / 1000},
            "group": f"<i>drive</i> {row // 3}",
            "src": source if row < pictures else "",
        }
        for row in range(rows)
    ]
    return {
        "images": 12_000,
        "judged": 11_990,
        "doubtful": rows + 5,
        "reason": "",
        "sample": "20000 images and 1024 of 2048 features",
        "dropped": False,
        "tuned": True,
        "kinds": [{"given": EVIL_CLASS, "suggested": "Roadwork", "images": rows + 5}],
        "pictures": every[:pictures],
        "rows": every,
        "ids": [row["id"] for row in every],
        **changes,
    }


def test_every_row_stands_with_its_labels_and_the_first_with_pictures() -> None:
    html = render_doubts(doubtful_labels(3, 7))
    page = Page(html)
    assert len(page.pictures) == 3 and "12 of 11\u202f990 labels of TRAIN are doubtful" in page.text
    rows = [row for row in page.rows if row[0].startswith("a/folder")]
    assert [row[2:5] for row in rows[:2]] == [["0.020", "Roadwork", "0.900"], ["0.021", "Roadwork", "0.899"]]
    assert rows[6][5] == "<i>drive</i> 2" and "10 of 12\u202f000 images could not be judged" in page.text
    ids = page.text.partition("Ids, to copy\n")[2].split()
    assert ids == doubtful_labels(3, 7)["ids"]
    assert not {"i", "script"} & {tag for tag, _ in page.tags} and html.count("<b>") == 3  # the names are text


def test_the_page_says_what_was_done_with_them_and_why_there_are_none() -> None:
    assert "training.label_doubts: drop</code> leaves" in render_doubts(doubtful_labels(1, 1))
    assert "left out of what weights were fitted on" in render_doubts(doubtful_labels(1, 1, dropped=True))
    none = doubtful_labels(0, 0, reason="training.label_doubts is off", judged=0, doubtful=0)
    page = Page(render_doubts(none))
    assert "No label was judged" in page.text and "training.label_doubts is off." in page.text


def test_the_page_stays_small() -> None:
    assert len(render_doubts(doubtful_labels(48, 300))) < 400_000
