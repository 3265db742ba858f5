"""The pages where people look at them: in a browser, on a phone and on a desk, on light and on dark."""

from pathlib import Path
from typing import Any

import pytest

from natix_lib.data.overview import overview
from natix_lib.reports.data import render_data
from natix_lib.reports.doubts import render_doubts
from natix_lib.reports.render import render_policy, render_report
from natix_lib.reports.review import render_review
from tests.data.test_overview import large
from tests.data_sets import EVIL_CLASS, write_doubtful, write_evil
from tests.reports.test_data_page import divided
from tests.reports.test_doubts_page import doubtful_labels
from tests.reports.test_render import documents, fitted
from tests.reports.test_review_page import review_content

PHONE, DESK = (390, 844), (1280, 900)
MANY = tuple(f"a class with a name {i}" for i in range(13))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pages")]  # one browser, pages of three runs

CUT = """
const cut = [];
for (const box of document.querySelectorAll('body, body *')) {
  if (box.closest('svg') && box.tagName !== 'svg') continue;
  if (box.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !box.closest('.scroll'))
    cut.push(box.tagName + ' ' + box.className);
}
return [document.documentElement.scrollWidth - document.documentElement.clientWidth, cut];
"""
SCROLLED = """
return [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).map(box => {
  box.scrollLeft = 10000;
  const first = box.querySelector('td').getBoundingClientRect(), frame = box.getBoundingClientRect();
  return [box.querySelector('table').className, first.left - frame.left, box.tabIndex];
});
"""
STROKES = """
const seen = {};
for (const line of document.querySelectorAll('svg path, svg use, svg text')) {
  const style = getComputedStyle(line), text = line.tagName === 'text';
  if (line.closest('clipPath') || line.closest('defs') || style.opacity === '0') continue;
  const faint = Number(style.strokeOpacity) < 1 || Number(style.opacity) < 1;  // grids, and bands behind the points
  const colour = text ? style.fill : style.stroke;
  if (colour !== 'none' && !faint) seen[colour] = (seen[colour] || 0) + 1;
}
return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, Object.keys(seen)];
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports and pages of both policies, of two classes and of thirteen, and of data with all that can be shown."""
    folder = tmp_path_factory.mktemp("pages")
    html = {
        "report": render_report(*documents()),
        "report of 13": render_report(*documents(MANY, alpha=0.3)),
        "sweep": render_policy(fitted("sweep")),
        "calibration": render_policy(fitted("calibrate")),
        "calibration of 13": render_policy(fitted("calibrate", MANY, alpha=0.3)),
    }
    for name, write in (("data", write_doubtful), ("evil data", write_evil)):
        html[name] = Path(divided(folder / name, write(folder / name / "source"))["data_report"]).read_text()
    index, division, thumbnails = large(360)
    html["large data"] = render_data(overview(index, (division, division.document()), thumbnails))
    html["label doubts"] = render_doubts(doubtful_labels(40, 300))
    html["review"] = render_review(review_content(classes=("None", EVIL_CLASS, *MANY)))
    for name, text in html.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in html}


def show(browser: Any, page: Path, size: tuple[int, int], scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
    )
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get(page.as_uri())


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_cut_at_the_edge_of_the_page(browser: Any, pages: dict[str, Path], size: tuple[int, int]) -> None:
    for name, page in pages.items():
        show(browser, page, size)
        assert browser.execute_script(CUT) == [0, []], name


def test_what_scrolls_on_a_phone_keeps_its_row_names_in_sight(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages["report of 13"], PHONE)
    scrolled = browser.execute_script(SCROLLED)
    assert scrolled and all(table == "matrix" and abs(left) < 1 and tab == 0 for table, left, tab in scrolled)
    show(browser, pages["report"], PHONE)
    assert browser.execute_script(SCROLLED) == []


def test_thirteen_classes_fit_on_a_desk(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages["report of 13"], DESK)
    assert browser.execute_script(SCROLLED) == []


def luminance(colour: str) -> float:
    """Relative luminance of a CSS rgb() colour, by WCAG 2.2."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axes_and_lines_are_seen_on_light_and_on_dark(browser: Any, pages: dict[str, Path], scheme: str) -> None:
    for name, page in pages.items():
        show(browser, page, DESK, scheme)
        background, text, strokes = browser.execute_script(STROKES)
        assert (luminance(background) < 0.1) == (scheme == "dark"), name
        assert (text in strokes) == (name not in ("label doubts", "review")), name  # they have no plot
        assert {colour: ratio for colour in strokes if (ratio := contrast(colour, background)) < 3} == {}, name
