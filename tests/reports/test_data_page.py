import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from natix_lib.contracts import ROLES
from natix_lib.data.overview import overview
from natix_lib.data.rules import SWITCHES
from natix_lib.files import read_json
from natix_lib.reports.data import RULES as TITLES
from natix_lib.reports.data import render_data
from tests.data.test_overview import large
from tests.data_sets import EVIL_CLASS, write_doubtful, write_evil
from tests.street_sets import ingest_settings, run_step

RULES = {"None": {"scene": ["traffic cone"]}}
Paths = dict[str, str]


class Page(HTMLParser):
    """The tags, the text, and the rows of the tables of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text, self._cell = "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th") or (self._cell and tag not in ("tr", "table"))
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data

    @property
    def pictures(self) -> list[bytes]:
        sources = [values["src"] or "" for tag, values in self.tags if tag == "img"]
        assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]


def divided(folder: Path, root: Path, split: dict | None = None, **data: Any) -> Paths:
    data.setdefault("max_reject_fraction", 0.5)
    paths = run_step("ingest", ingest_settings(root, **data), folder)[0]
    ratios = {"train": 0.4, "val_select": 0.2, "val_calib": 0.2, "test": 0.2}
    return paths | run_step("split", {"split": {"ratios": ratios, **(split or {})}}, folder, paths)[0]


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("doubtful")
    return divided(folder, write_doubtful(folder / "source"), contradictions=RULES)


@pytest.fixture(scope="module")
def page(doubtful: Paths) -> Page:
    return Page(Path(doubtful["data_report"]).read_text())


def test_the_figures_of_the_page_are_those_of_the_division(doubtful: Paths, page: Page) -> None:
    splits = read_json(doubtful["splits"])
    rows = {row[0]: row[1:] for row in page.rows if row}
    for role in ROLES:
        names = splits["roles"][role]
        groups = {splits["groups"][name] for name in names}
        shares = [f"{100 * splits['ratios'][kind][role]:.1f}\u00a0%" for kind in ("achieved", "target")]
        assert rows[role] == [str(len(names)), str(len(groups)), *shares]
    for name in splits["class_names"]:
        counts = [splits["counts"][role][name] for role in ROLES]
        assert rows[name][0] == str(sum(counts)) and rows[name][2:] == list(map(str, counts))
    assert f"groups{len(set(splits['groups'].values()))}" in re.sub(r"\s", "", page.text)
    assert rows["sun"][0] == str(16 + 2) and "weather" in page.text


def test_what_is_joined_stands_with_its_rule_and_two_pictures(doubtful: Paths, page: Page) -> None:
    joined = page.text.partition("What was joined")[2].partition("The largest groups")[0]
    assert re.search(r"Equal pixels\s+2 links, 2 of them across two groups that the data names", joined)
    assert re.search(r"Drives that the data names\s+32 links", joined)
    assert "copy-0.png" in joined and "00-0.png" in joined and "equal pixels" in joined


def test_every_rule_has_a_title() -> None:
    assert TITLES.keys() == SWITCHES.keys()


def test_every_link_of_every_rule_is_listed(doubtful: Paths) -> None:
    table, splits = pq.read_table(doubtful["links"]).to_pydict(), read_json(doubtful["splits"])
    assert {rule: table["rule"].count(rule) for rule in splits["links"]} == splits["links"]
    assert all(
        splits["groups"][a] == splits["groups"][b] for a, b in zip(table["image"], table["joined_to"], strict=True)
    )
    pairs = set(zip(table["rule"], table["image"], table["joined_to"], table["evidence"], strict=True))
    assert ("same_pixels", "copy-0.png", "00-0.png", "equal pixels") in pairs


def test_labels_pictures_rejects_and_files_to_look_at_are_shown(page: Page) -> None:
    for text in (
        "One picture, two labels",
        "Labels that a text contradicts",
        "A Traffic CONE stands",
        "Tiny: 52 with a side below 64 pixels",
        "Flat: 1 that show one colour",
        "Rejected: 1",
        "unlisted.png",
    ):
        assert text in page.text, text
    assert re.search(r"look the same and have different labels: 2\b", page.text)
    assert page.text.index("damaged.jpg") > page.text.index("Rejected")


def test_a_damaged_photograph_is_shown_as_far_as_it_goes(doubtful: Paths, page: Page) -> None:
    damaged = page.pictures[-1]
    with Image.open(io.BytesIO(damaged)) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    assert pixels[: len(pixels) // 4].std() > 4 > 1 > pixels[-len(pixels) // 5 :].std()


def test_the_page_runs_nothing_and_refers_to_nothing_outside(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "form"}
    for tag, values in page.tags:
        assert not any(name.startswith("on") for name in values)
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"data:image/jpeg;|#", values.get(name) or "#"), (tag, values)


def test_names_from_outside_are_text_in_their_own_direction(tmp_path: Path) -> None:
    paths = divided(tmp_path, write_evil(tmp_path / "source"))
    html = Path(paths["data_report"]).read_text()
    evil = Page(html)
    assert not {tag for tag, _ in evil.tags} & {"b onclick", "s"} and "<img src=x" not in html and "<b on" not in html
    assert not any("onclick" in values or "onerror" in values for _, values in evil.tags)
    assert EVIL_CLASS.replace("/", "\u2215") in evil.text  # the class, as its owner wrote it
    assert "\u202e" not in html and r"صور\u202egpj.png" in evil.text and r"caf\udce9" in evil.text.replace("\n", "")
    assert html.count("<bdi>") == html.count("</bdi>") > 20


@pytest.mark.slow
def test_the_page_is_small_however_many_images_there_are() -> None:
    index, division, thumbnails = large(360)
    content = overview(index, (division, division.document()), thumbnails)
    html = render_data(content)
    assert (
        len(html) < 2_000_000
        and len(Page(html).pictures) > 40
        and {"place", "same_pixels"} <= {rule["rule"] for rule in content["joined"]}
    )


def test_images_with_two_labels_are_left_out_where_the_config_says_so(tmp_path: Path, doubtful: Paths) -> None:
    dropped = divided(
        tmp_path, Path(doubtful["images"]).parent / "source", split={"conflicting_labels": "drop"}, contradictions=RULES
    )
    splits = read_json(dropped["splits"])
    assert splits["left_out"] == dict.fromkeys(
        ("00-0.png", "02-0.png", "copy-0.png", "copy-1.png"), "conflicting label"
    )
    assert sum(map(len, splits["roles"].values())) == 52 - 4
    assert "4 images look the same as one with another label" in splits["warnings"][-1]
    html = Path(dropped["data_report"]).read_text()
    assert "One picture, two labels" in html and "They are in no split" in html
