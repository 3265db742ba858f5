"""`natix review` as an operator calls it: what is on the page, what is told, and what ingest makes of the labels."""

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from natix_lib import cli
from natix_lib.bundle.runtime import Bundle
from natix_lib.config import DataSource
from natix_lib.data.decode import decode, open_image
from natix_lib.data.sources import open_source
from natix_lib.errors import ConfigError, DataError, printable
from natix_lib.files import read_json
from tests.damage import changed_bundle
from tests.loopback import Handler, serving
from tests.reports.test_data_page import Page
from tests.reports.test_review_page import data_of, shown_pictures
from tests.storage.places import Memory

Review = Callable[..., Result]
STRANGE = ['a,b "c".jpg', "new\nline.png", "carriage\rreturn.png", "=cmd.png", " first.png", "ü 東京.png", "<b>'x'.png"]


def accepting(folder: Path, target: Path, **rule: Any) -> Path:
    """A copy of a bundle whose policy accepts by another rule."""
    accept = {**read_json(folder / "scrcparams.json")["accept"], **rule}
    return changed_bundle(folder, target, "scrcparams.json", accept=accept)


@pytest.fixture
def asking(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that accepts nothing."""
    return accepting(tiny_bundle, tmp_path / "asking", mode="abstain_all", threshold=None)


@pytest.fixture
def review(asking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Review:
    """The command in this process, in a folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*words: object, bundle: Path = asking) -> Result:
        return CliRunner().invoke(cli.app, ["review", "--bundle", str(bundle), *map(str, words)])

    return call


@pytest.fixture
def photos(review: Review, picture: Callable[..., Image.Image]) -> Path:
    """A folder `photos` of eight images, larger than a page shows them or smaller, where the command runs."""
    for seed in range(8):
        path = Path(f"photos/{'rear/' if seed % 2 else ''}{seed}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(48, 32, seed).resize((1200, 800) if seed < 4 else (300, 200)).save(path, quality=95)
    return Path("photos")


def predicted(bundle: Path, *words: str) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(cli.app, ["predict", "--bundle", str(bundle), *words])
    return {row["image"]: row for row in map(json.loads, result.stdout.splitlines())}


def confidence(row: dict[str, Any]) -> float:
    return max(row["probabilities"].values())


def names(page: str = "review.html") -> list[str]:
    return [one["name"] for one in data_of(Path(page).read_text())["images"]]


def test_the_page_shows_what_predict_rejects_and_nothing_else_the_least_confident_first(
    review: Review, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    logits = Bundle.load(tiny_bundle).logits(open_image(path) for path in sorted(photos.rglob("*.jpg")))
    cut = float(np.median(np.abs(logits[:, 0] - logits[:, 1])))
    bundle = accepting(tiny_bundle, tmp_path / "some", mode="threshold", threshold=cut)
    rows = predicted(bundle, "photos")
    rejected = sorted((name for name in rows if not rows[name]["accepted"]), key=lambda name: confidence(rows[name]))
    assert 2 <= len(rejected) <= 6
    done = review("photos", bundle=bundle)
    assert done.exit_code == 0, done.output
    html = Path("review.html").read_text()
    assert names() == [name.removeprefix("photos/") for name in rejected]
    for name, content in zip(rejected, shown_pictures(html), strict=True):
        shown, original = decode(content, 10**9), open_image(name)
        assert shown.size == ((679, 453) if original.width == 1200 else (300, 200))
        difference = np.asarray(original.resize(shown.size)).astype(float) - np.asarray(shown)
        assert np.abs(difference).mean() < 6
    place = Path("photos").absolute()
    assert done.stdout.splitlines()[0] == f"page    review.html, {len(rejected)} images, the least confident first"
    assert f", for the folder {place}\n" in done.stdout and f"<code>{place}</code>" in html
    counts = f"8 images: {8 - len(rejected)} accepted, {len(rejected)} to ask a person about, 0 failed; "
    assert done.stderr.startswith(counts) and done.stderr.splitlines()[1] == Bundle.load(bundle).promise


def test_a_page_holds_no_more_than_asked_for_and_says_how_many_are_left_out(
    review: Review, photos: Path, asking: Path
) -> None:
    rows = predicted(asking, "photos")
    least = sorted(rows, key=lambda name: confidence(rows[name]))[:3]
    done = review("photos", "--limit", 3, "-o", "three.html")
    assert names("three.html") == [name.removeprefix("photos/") for name in least]
    more = "3 images, the least confident first; 5 more are left out: --limit takes in up to 1000"
    assert done.stdout.splitlines()[0] == f"page    three.html, {more}"
    assert "5 more are left out of this page" in Page(Path("three.html").read_text()).text
    assert review("photos", "--limit", 1001).exit_code == 2


def test_an_image_that_is_named_twice_is_asked_about_once(review: Review, photos: Path) -> None:
    done = review("photos", "photos/rear", photos.absolute() / "0.jpg", "photos/rear/../0.jpg", "./photos//0.jpg")
    assert sorted(names()) == sorted(path.relative_to("photos").as_posix() for path in photos.rglob("*.jpg"))
    assert done.exit_code == 0 and "left out" not in done.stdout and "15 images: " in done.stderr


def test_when_nothing_is_rejected_one_line_says_so_and_there_is_no_page(
    review: Review, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    accepts = accepting(tiny_bundle, tmp_path / "all", mode="accept_all", threshold=None)
    done = review("photos", bundle=accepts)
    assert (done.exit_code, done.stdout) == (0, "no page: there is no image to ask a person about\n")
    assert done.stderr.startswith("8 images: 8 accepted") and not Path("review.html").exists()


def test_what_cannot_be_read_is_listed_and_ends_nothing(review: Review, photos: Path) -> None:
    (photos / "bad<i>.jpg").write_text("no picture")
    done = review("photos", "gone.jpg", "https://host/x.jpg")
    assert done.exit_code == 2 and len(names()) == 8
    assert "not taken in: photos/bad<i>.jpg: no image format is known for it\n" in done.stderr
    assert "not taken in: gone.jpg: no such file\n" in done.stderr and "3 failed" in done.stderr
    text = Page(Path("review.html").read_text()).text
    assert "Not taken in: 3" in text and "photos/bad<i>.jpg: no image format is known for it" in text
    alone = review("gone.jpg", "-o", "none.html")
    assert alone.exit_code == 2 and alone.stdout.startswith("no page: ") and not Path("none.html").exists()


def test_many_that_cannot_be_read_do_not_flood_the_screen(review: Review, photos: Path) -> None:
    done = review("photos/0.jpg", *(f"gone{number}.jpg" for number in range(250)))
    assert done.stderr.count("not taken in: ") == 11 and "not taken in: 240 more\n" in done.stderr
    text = Page(Path("review.html").read_text()).text
    assert text.count("no such file") == 200 and "50 more." in text


def exported(page: dict[str, Any], labels: list[int]) -> str:
    """What the page exports when its pictures are given these classes."""
    classes = [page["classes"][label]["cell"] for label in labels]
    cells = [image["cell"] for image in page["images"]]
    return page["header"] + "".join(f"{cell},{label}\n" for cell, label in zip(cells, classes, strict=True))


def test_strange_names_come_back_from_the_manifest_as_the_files_that_they_name(review: Review, photos: Path) -> None:
    for name in STRANGE:
        shutil.copy(photos / "0.jpg", photos / name)
    assert review("photos").exit_code == 0
    page = data_of(Path("review.html").read_text())
    labels = [number % 2 for number in range(15)]
    (photos / page["file"]).write_bytes(exported(page, labels).encode())
    source = open_source(photos, DataSource(data_root=str(photos), manifest=page["file"]))
    assert {row.id for row in source.rows} == {*STRANGE, *(f"{'rear/' if n % 2 else ''}{n}.jpg" for n in range(8))}
    assert [row.label for row in source.rows] == [["None", "Roadwork"][label] for label in labels]
    assert all(isinstance(content, bytes) for content in source.images())
    assert [row.id for row in source.rows if row.id.startswith("=")] and '"./=cmd.png"' in exported(page, labels)


def test_a_name_that_no_manifest_can_hold_is_told_before_anybody_has_labelled_it(review: Review, photos: Path) -> None:
    for name in ("back\\slash.png", "c\udcff.png", "end ", "a.jpg,None\nb.jpg"):
        shutil.copy(photos / "0.jpg", photos / name)
    done = review("photos", *photos.glob("end*"), *photos.glob("*b.jpg"))
    assert done.exit_code == 2 and len(names()) == 8
    assert done.stderr.count(": no manifest can name it: ") == 4
    assert Page(Path("review.html").read_text()).text.count("no manifest can name it") == 4
    alone = review("photos/back\\slash.png", "-o", "none.html")
    assert (alone.exit_code, alone.stdout) == (2, "no page: no manifest can name what is rejected\n")
    assert not Path("none.html").exists()
    folder = re.escape(str(photos.absolute()))
    assert re.search(rf"{folder}/end : no manifest can name it: it is read as 'end'", done.stderr)


def test_images_of_a_bucket_are_named_from_their_prefix(
    review: Review, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Memory(monkeypatch)
    place.put({f"set/a b/{path.name}": path.read_bytes() for path in photos.rglob("*.jpg")})
    done = review(place.uri("set"))
    prefix = place.uri("set/a b")
    assert done.exit_code == 0 and sorted(names()) == [f"{number}.jpg" for number in range(8)]
    assert f"for the folder {prefix}\nnext    natix data check '{prefix}' --set data.manifest=reviewed-" in done.stdout
    mixed = review(place.uri("set"), "photos", "-o", "mixed.html")
    assert isinstance(mixed.exception, DataError) and not Path("mixed.html").exists()
    assert str(mixed.exception).startswith(
        f"one manifest must name all images from one folder or bucket, got {prefix}/0.jpg and /"
    )


def test_a_page_that_is_there_is_not_written_over(review: Review, photos: Path) -> None:
    Path("review.html").write_text("mine")
    done = review("photos")
    assert isinstance(done.exception, ConfigError) and "review.html exists" in str(done.exception)
    assert Path("review.html").read_text() == "mine"


def test_labels_hang_on_the_picture_and_its_name_and_on_nothing_else(review: Review, photos: Path) -> None:
    review("photos")
    review("photos", "--limit", 2, "-o", "two.html")
    whole, two = (data_of(Path(name).read_text()) for name in ("review.html", "two.html"))
    assert two["images"] == whole["images"][:2] and two["slot"] == whole["slot"] and two["file"] != whole["file"]
    first = photos / whole["images"][0]["name"]
    shutil.copy(photos / whole["images"][1]["name"], first)
    review("photos", "-o", "changed.html")
    keys = {image["name"]: image["key"] for image in data_of(Path("changed.html").read_text())["images"]}
    differ = [image["name"] for image in whole["images"] if keys[image["name"]] != image["key"]]
    assert differ == [whole["images"][0]["name"]]


NAME = "return document.getElementById('name').textContent"
ASK_NETWORK = """
const [address, done] = arguments;
new Image().src = address + '/image';
navigator.sendBeacon(address + '/beacon', 'x');
for (const [tag, key, value] of [['iframe', 'src', address + '/frame'], ['script', 'src', address + '/script'],
                                 ['script', 'textContent', 'window.ran = true'], ['a', 'textContent', '']])
  document.body.append(Object.assign(document.createElement(tag), { [key]: value }));
const link = document.body.lastChild;
link.setAttribute('onclick', 'window.clicked = true');
link.click();
fetch(address + '/fetch', { mode: 'no-cors' }).catch(() => 0).then(
  () => setTimeout(() => done([window.ran === true, window.clicked === true]), 300));
"""


def text_of(browser: Any, name: str) -> str:
    return browser.find_element("id", name).text


@pytest.mark.slow
@pytest.mark.xdist_group("pages")
def test_a_person_labels_by_keys_alone_reloads_goes_on_and_ingest_reads_the_export(
    browser: Any, review: Review, photos: Path
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    (folder := Path("odd").absolute()).mkdir()
    for number, name in enumerate(STRANGE):
        shutil.copy(f"photos/{'rear/' if number % 2 else ''}{number}.jpg", folder / name)
    made = review("odd")
    page = data_of(Path("review.html").read_text())
    order = [image["name"] for image in page["images"]]
    downloads = Path("downloads").absolute()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})

    def press(*keys: str) -> tuple[str, int]:
        actions = ActionChains(browser)
        for key in keys:
            actions = actions.send_keys(key)
        actions.perform()
        return text_of(browser, "counts"), order.index(browser.execute_script(NAME))

    browser.get(Path("review.html").absolute().as_uri())
    assert press("e") == ("0 done, 7 left", 0) and text_of(browser, "said").startswith("Nothing is labelled yet")
    assert press("2", "1", " ", "2") == ("3 done, 4 left", 4)  # the picture of number 2 was passed over
    assert press("u") == ("2 done, 5 left", 3) and text_of(browser, "said") == "Took back Roadwork of picture 4"
    assert press("1", Keys.ARROW_LEFT, "k", Keys.ARROW_RIGHT, "j", "j", "z", "9") == ("3 done, 4 left", 5)
    assert press("2") == ("4 done, 3 left", 6)
    browser.refresh()
    assert press() == ("4 done, 3 left", 2)  # the first without a label
    assert press("u") == ("3 done, 4 left", 5)  # the last that was labelled before the reload
    assert press("1", "k", "k", "k", "k", "2") == ("5 done, 2 left", 4)
    assert press(Keys.TAB, Keys.ENTER) == ("6 done, 1 left", 6)  # the first button
    assert press("e")[0] == "6 done, 1 left" and f"Exported 6 labels as {page['file']}" == text_of(browser, "said")
    export = downloads / page["file"]
    deadline = time.monotonic() + 30
    while not export.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert export.read_bytes().decode() == exported({**page, "images": page["images"][:6]}, [1, 0, 1, 0, 0, 0])
    shutil.copy(export, folder)
    done = CliRunner().invoke(cli.app, [*shlex.split(made.stdout.split("next    ")[1])[1:], "-o", "data.html"])
    assert "images  6, 0 rejected: None 4, Roadwork 2\n" in done.stdout, done.output
    source = open_source(folder, DataSource(data_root=str(folder), manifest=export.name))
    assert [printable(row.id) for row in source.rows] == order[:6]
    assert [row.label for row in source.rows] == ["Roadwork", "None", "Roadwork", "None", "None", "None"]


class Heard(Handler):
    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.answer(200, b"")

    do_POST = do_GET


@pytest.mark.slow
@pytest.mark.xdist_group("pages")
def test_nothing_leaves_the_page_even_where_a_script_in_it_asks(browser: Any, review: Review, photos: Path) -> None:
    assert review("photos").exit_code == 0
    Path("bare.html").write_text("<!doctype html><body></body>")
    browser.set_script_timeout(30)
    for page, hears in (("bare.html", True), ("review.html", False)):
        Heard.paths.clear()
        browser.get(Path(page).absolute().as_uri())
        with serving(Heard) as address:
            ran = browser.execute_async_script(ASK_NETWORK, address)
        assert (
            ran == [hears, hears] and ({"/image", "/frame", "/script", "/fetch", "/beacon"} <= {*Heard.paths}) == hears
        )
        assert hears or Heard.paths == []
