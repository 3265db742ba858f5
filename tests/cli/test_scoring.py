"""`natix predict` on what people have: every kind of input, every format of output, and how it ends."""

import codecs
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from natix_lib import cli
from natix_lib.bundle.runtime import Bundle
from natix_lib.cli import named_images, rate
from natix_lib.data.decode import open_image
from natix_lib.errors import ConfigError, DataError, NatixError, StorageError
from natix_lib.files import read_json
from tests import terminal
from tests.bundle.test_pictures import BEYOND_BASE, HIDE
from tests.cloud_storage import BUCKET, Cloud
from tests.damage import changed_bundle, seal
from tests.storage.places import CloudStorage, Memory, Place

ROOT = Path(__file__).parents[2]
NATIX = [sys.executable, "-m", "natix_lib.cli"]
Predict = Callable[..., Result]


@pytest.fixture
def predict(tiny_bundle: Path) -> Predict:
    """The command in this process."""

    def call(*words: object, stdin: bytes = b"", bundle: Path = tiny_bundle) -> Result:
        arguments = ["predict", "--bundle", str(bundle), *map(str, words)]
        return CliRunner().invoke(cli.app, arguments, input=stdin, catch_exceptions=True)

    return call


@pytest.fixture
def photos(tmp_path: Path, picture: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `photos` of five images in the folder that the test works in."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    for seed, name in enumerate(("b.jpg", "a.png", "rear/c.webp", "rear/deep/d.JPG", "rear/deep/e.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(60, 40, seed=seed).save(folder / name)
    return folder


def rows(result: Result) -> list[dict]:
    assert isinstance(result.exception, SystemExit | None), result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(result: Result) -> list[str]:
    return [row["image"] for row in rows(result)]


FOLDER = ["photos/a.png", "photos/b.jpg", "photos/rear/c.webp", "photos/rear/deep/d.JPG", "photos/rear/deep/e.png"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["photos"], FOLDER),
        (["photos/"], FOLDER),
        (["photos/b.jpg", "photos/a.png", "photos/b.jpg"], ["photos/b.jpg", "photos/a.png", "photos/b.jpg"]),
        (["photos/*.png"], ["photos/a.png"]),
        (["photos/**/*.png"], ["photos/a.png", "photos/rear/deep/e.png"]),
        (["photos/[ab].*"], ["photos/a.png", "photos/b.jpg"]),
        (["./photos/rear/*", "photos/b.jpg"], ["photos/rear/c.webp", *FOLDER[3:], "photos/b.jpg"]),
    ],
)
def test_files_folders_and_patterns_give_a_row_an_image_in_their_order(
    predict: Predict, photos: Path, words: list[str], expected: list[str]
) -> None:
    result = predict(*words)
    assert names(result) == expected and result.exit_code == 0, result.stderr


def test_every_row_is_what_the_bundle_says_of_its_image(predict: Predict, photos: Path, tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    found = rows(predict(photos, *[photos / "b.jpg"] * 30))
    assert len(found) == 35
    for row in found:
        (expected,) = bundle.predict([open_image(row.pop("image"))])
        assert row["probabilities"] == pytest.approx(expected.document()["probabilities"], abs=2e-6)
        assert set(row) == {"label", "probabilities", "score", "accepted"} and row["label"] == expected.label


def test_a_list_on_standard_input_names_images_one_a_line(
    predict: Predict, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = b"photos/rear/c.webp\r\n\nphotos/a.png\nphotos\nphotos/b.jpg"
    monkeypatch.setattr(named_images, "BLOCK", 25)  # so that lines come in pieces
    result = predict("-", stdin=codecs.BOM_UTF8 + listed)
    assert names(result) == ["photos/rear/c.webp", "photos/a.png", "photos", "photos/b.jpg"]
    assert rows(result)[2]["error"] == "it must be a regular file, not a folder, pipe or device"
    assert result.exit_code == 2 and "1 failed" in result.stderr
    assert names(predict("photos/b.jpg", "-", "photos/a.png", stdin=b"photos/rear/c.webp\n")) == [
        "photos/b.jpg", "photos/rear/c.webp", "photos/a.png",
    ]  # fmt: skip
    nothing = predict("-", "--output", "o.csv")
    assert isinstance(nothing.exception, DataError) and str(nothing.exception) == "standard input names no image"
    endless = predict("-", "--output", "o.csv", stdin=b"photos/a.png\n" + b"a" * 51)
    assert str(endless.exception) == "a line of standard input has more than 25 bytes: give an image a line"
    assert list(Path().iterdir()) == [Path("photos")]


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "list.parquet", "list.csv.gz"])
def test_a_manifest_names_images_from_its_folder(predict: Predict, photos: Path, name: str) -> None:
    images = ["rear/c.webp", "a.png", "gone.jpg", "https://host/x.jpg"]
    table = pd.DataFrame({"note": ["None", "", "x", "y"], "image": images})
    if name.endswith(".parquet"):
        table.to_parquet(photos / name)
    elif name.endswith(".jsonl"):
        table.to_json(photos / name, orient="records", lines=True)
    else:
        table.to_csv(photos / name, index=False, sep="\t" if name.endswith(".tsv") else ",")
    result = predict(f"photos/{name}")
    assert names(result) == ["photos/rear/c.webp", "photos/a.png", "photos/gone.jpg", "https://host/x.jpg"]
    errors = [row.get("error") for row in rows(result)]
    assert errors[:2] == [None, None] and errors[2] == "no such file"
    assert errors[3] == "it must be a local path or gs://bucket/path or s3://bucket/path: no other addresses are read"


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("", ConfigError, "an image must have a name, got ''"),
        ("empty", DataError, "folder empty holds no image; left out 1 hidden or system files and folders: .DS_Store"),
        ("*.gif", ConfigError, "*.gif matches nothing"),
        ("**x/*.gif", ConfigError, "the pattern **x/*.gif cannot be followed: "),
        ("none.csv", DataError, "none.csv has no column 'image'; it has file, label"),
        ("hole.csv", DataError, "hole.csv row 3: image is empty"),
        ("blank.csv", DataError, "manifest blank.csv is empty"),
        ("header.csv", DataError, "header.csv lists no image"),
        ("gs://", StorageError, "a bucket address must read gs://bucket/path, got gs://"),
    ],
)
def test_a_word_that_leads_to_no_image_ends_the_call_in_one_line(
    predict: Predict, photos: Path, word: str, error: type[NatixError], message: str
) -> None:
    Path("empty").mkdir()
    Path("empty/.DS_Store").write_bytes(b"")
    Path("none.csv").write_text("file,label\na.jpg,None\n")
    Path("hole.csv").write_text("image,label\na.jpg,None\n,None\n")
    Path("blank.csv").write_text("")
    Path("header.csv").write_text("image,label\n")
    result = predict("photos", word, "--output", "out.csv")
    assert isinstance(result.exception, error) and str(result.exception).startswith(message), result.exception
    assert result.stdout == "" and not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.jpg", "no such file"),
        ("pipe", "it must be a regular file, not a folder, pipe or device"),
        ("/dev/zero", "it must be a regular file, not a folder, pipe or device"),
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "no image format is known for it"),
        ("empty.jpg/below", "Not a directory"),
        ("x" * 5000, "File name too long"),
        (
            "https://user:pass@host/a",
            "it must be a local path or gs://bucket/path or s3://bucket/path: no other addresses are read",
        ),
        ("~/a.jpg", "it must be written out: ~ is not expanded here"),
        ("loop.jpg", "Too many levels of symbolic links"),
    ],
)
def test_an_image_that_cannot_be_read_is_a_row_with_its_error_and_ends_nothing(
    predict: Predict, photos: Path, name: str, reason: str
) -> None:
    os.mkfifo("pipe")
    Path("empty.jpg").write_bytes(b"")
    Path("text.jpg").write_text("no picture")
    Path("loop.jpg").symlink_to("loop.jpg")
    result = predict("photos/a.png", name, "photos/b.jpg")
    found = rows(result)
    assert found[1] == {"image": name, "error": reason}
    assert "label" in found[0] and "label" in found[2] and result.exit_code == 2
    first = result.stderr.splitlines()[0]
    assert first.startswith("3 images: ") and "1 failed" in first and first.endswith(reason) and len(first) < 1200


def test_strange_folders_are_read_once_and_what_is_left_out_is_said(predict: Predict, photos: Path) -> None:
    for name in ("new\nline.png", "c\udcff.png", "=cmd.png", "carriage\rreturn.png", "ü.png", ".hidden.png"):
        shutil.copy(photos / "a.png", photos / name)
    for folder in ("__MACOSX", ".git"):
        (photos / folder).mkdir()
        shutil.copy(photos / "a.png", photos / folder / "x.png")
    (photos / ".DS_Store").write_bytes(b"")
    (photos / "phone.heic").write_bytes(b"")
    (photos / "rear" / "up").symlink_to(photos)
    (photos / "again").symlink_to(photos)
    (photos / "lost.png").symlink_to("nowhere")
    result = predict("photos")
    strange = ["photos/new\nline.png", "photos/c\udcff.png", "photos/=cmd.png", "photos/carriage\rreturn.png",
               "photos/ü.png", "photos/lost.png"]  # fmt: skip
    found = {row["image"]: row.get("error") for row in rows(result)}
    assert len(rows(result)) == len(found) == 11 and set(strange) < set(found)
    assert [name for name, error in found.items() if error] == ["photos/lost.png"]
    assert "warning: folder photos: left out 1 files of formats that are not read (.heic 1)" in result.stderr
    assert names(predict("photos/**/*.png"))[0] == "photos/=cmd.png"
    assert "photos/.hidden.png" not in names(predict("photos/*")) and names(predict("photos/.h*")) == [
        "photos/.hidden.png"
    ]
    for output in ("o.csv", "o.parquet", "o.jsonl"):
        assert predict("=cmd.png", *strange[:5], "--output", output).exit_code == 2
    (table, columns, lines) = (
        pd.read_csv("o.csv"),
        pq.read_table("o.parquet").column("image").to_pylist(),
        [json.loads(line)["image"] for line in Path("o.jsonl").read_text().splitlines()],
    )
    assert lines == ["=cmd.png", *strange[:5]]
    assert columns == ["=cmd.png", strange[0], "photos/c\\udcff.png", *strange[2:5]]
    assert list(table["image"]) == [
        "./=cmd.png", strange[0], "photos/c\\udcff.png", strange[2], "photos/carriage\\rreturn.png", strange[4],
    ]  # fmt: skip


def test_a_file_with_the_letters_of_a_pattern_or_of_standard_input_is_that_file(predict: Predict, photos: Path) -> None:
    shutil.copy(photos / "a.png", "*.png")
    shutil.copy(photos / "a.png", "x.png")
    Path("lists").mkdir()
    shutil.copy(photos / "a.png", "lists/-")
    os.chdir("lists")
    assert names(predict("../*.png")) == ["../*.png"] and names(predict("./?")) == ["-"]


@pytest.fixture(params=["gs", "mem"])
def bucket(request: pytest.FixtureRequest) -> Place:
    if request.param == "gs":
        cloud: Cloud = request.getfixturevalue("cloud")
        return CloudStorage(cloud)
    return Memory(request.getfixturevalue("monkeypatch"))


def test_a_bucket_is_fetched_and_scored_as_the_same_files_are(
    predict: Predict, photos: Path, bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    bucket.put({f"set/{name.removeprefix('photos/')}": Path(name).read_bytes() for name in FOLDER})
    bucket.put({"set/.hidden.png": b"", "set/notes.txt": b"", "set/__MACOSX/x.png": b"", "set/bad.jpg": b"no picture"})
    for word in ("set", "set/"):
        result = predict(bucket.uri(word))
        expected = {row.pop("image").replace("photos", bucket.uri("set"), 1): row for row in rows(predict("photos"))}
        found = {row.pop("image"): row for row in rows(result)}
        assert found.pop(bucket.uri("set/bad.jpg")) == {"error": "no image format is known for it"}
        assert list(found) == sorted(expected) and result.exit_code == 2
        for name, row in found.items():
            assert row["probabilities"] == pytest.approx(expected[name]["probabilities"], abs=2e-6)
    one = predict(bucket.uri("set/a.png"), "-", stdin=f"{bucket.uri('set/b.jpg')}\n{bucket.uri('set/no.jpg')}".encode())
    assert names(one) == [bucket.uri("set/a.png"), bucket.uri("set/b.jpg"), bucket.uri("set/no.jpg")]
    assert rows(one)[2]["error"] == f"{bucket.uri('set/no.jpg')} does not exist"
    assert list((tmp_path / "scratch").iterdir()) == []
    for word, message in (("gone", "holds no object"), ("set/notes", "holds no object")):
        assert str(predict(bucket.uri(word)).exception) == f"{bucket.uri(word)} {message}"
    bucket.put({"text/notes.txt": b""})
    assert "text holds no image: no name ends in .avif, " in str(predict(bucket.uri("text")).exception)


def test_an_object_that_is_damaged_on_its_way_is_a_row_with_its_error(
    predict: Predict, photos: Path, cloud: Cloud
) -> None:
    cloud.put({name: Path(name).read_bytes() for name in FOLDER})
    cloud.edit = lambda path, content, _: content[:-1] + b"x" if "b.jpg" in path and "alt=media" in path else content
    found = rows(predict(f"gs://{BUCKET}/photos"))
    assert ["error" in row for row in found] == [False, True, False, False, False]
    assert found[1]["error"].startswith(f"gs://{BUCKET}/photos/b.jpg does not match")


@pytest.fixture
def sets_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return changed_bundle(tiny_bundle, tmp_path / "sets", "scrcparams.json", sets={"score": "lac", "threshold": 1.0})


def test_the_three_files_hold_the_same_as_standard_output(predict: Predict, photos: Path, sets_bundle: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    expected = rows(predict("photos", bundle=sets_bundle))
    assert [row["image"] for row in expected][2] == "photos/bad.jpg"
    for output in ("new/o.jsonl", "o.csv", "o.parquet"):
        result = predict("photos", "--output", output, bundle=sets_bundle)
        assert result.stdout == "" and result.exit_code == 2
    assert [json.loads(line) for line in Path("new/o.jsonl").read_text().splitlines()] == expected
    columns = ["image", "label", "p:None", "p:Roadwork", "score", "accepted", "set", "error"]
    table = pq.read_table("o.parquet")
    assert table.column_names == columns
    assert [str(table.schema.field(name).type) for name in ("p:None", "accepted", "set")] == [
        "double", "bool", "list<element: string>",
    ]  # fmt: skip
    assert pa.types.is_string(table.schema.field("error").type)
    frame = pd.read_csv("o.csv", keep_default_na=False)
    assert list(frame.columns) == columns
    for row, arrow, (_, text) in zip(expected, table.to_pylist(), frame.iterrows(), strict=True):
        if "error" in row:
            assert {name: value for name, value in arrow.items() if value is not None} == row
            assert {name: value for name, value in text.items() if value != ""} == row
            continue
        assert arrow.pop("error") is None and text["error"] == ""
        assert {"None": arrow.pop("p:None"), "Roadwork": arrow.pop("p:Roadwork")} == row["probabilities"]
        assert float(text["p:None"]) == row["probabilities"]["None"] and float(text["score"]) == row["score"]
        assert text["accepted"] == str(row["accepted"]).lower() and json.loads(text["set"]) == row["set"]
        assert arrow == {name: value for name, value in row.items() if name != "probabilities"}
    with Path("o.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 7


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("o.txt", "--output must end in .csv, .jsonl, .parquet, got o.txt"),
        ("there.csv", "output there.csv exists: name another file, or remove it"),
        ("photos/b.jpg/o.csv", "output photos/b.jpg/o.csv lies below "),
        ("gs://bucket/o.csv", "gs://bucket/o.csv must be a local path, not an address: copy it here first"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(predict: Predict, photos: Path, output: str, message: str) -> None:
    Path("there.csv").write_text("mine")
    assert str(predict("photos", "--output", output).exception).startswith(message)
    assert Path("there.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("guarantee", "promise"),
    [
        ({"certified": True}, "certified: of the accepted at most 0.3 are wrong, with a confidence of 0.94"),
        ({"certified": False, "reason": "too few"}, "uncertified: the accept rule carries no guarantee: too few"),
    ],
)
def test_the_summary_counts_and_says_whether_a_promise_stands(
    predict: Predict, photos: Path, tiny_bundle: Path, tmp_path: Path, guarantee: dict, promise: str
) -> None:
    policy = json.loads((tiny_bundle / "scrcparams.json").read_text())
    changed = {"guarantee": {**policy["guarantee"], **guarantee}}
    shipped = read_json(tiny_bundle / "bundle.json")["policy"] | {"certified": guarantee["certified"]}
    bundle = changed_bundle(tiny_bundle, tmp_path / "p", "scrcparams.json", **changed)
    bundle = changed_bundle(bundle, tmp_path / "q", "bundle.json", policy=shipped)
    result = predict("photos", "gone", bundle=bundle)
    accepted = sum(row.get("accepted", False) for row in rows(result))
    summary, told = result.stderr.splitlines()
    assert summary.startswith(
        f"6 images: {accepted} accepted, {5 - accepted} to ask a person about, 1 failed; "
    ) and summary.endswith(" images/s; the first that failed: gone: no such file")
    assert told.startswith(promise)


@pytest.mark.slow
def test_the_policy_of_sweep_promises_nothing(predict: Predict, chain, photos: Path, tmp_path: Path) -> None:
    chain.export(tmp_path / "swept", {"policy": "sweep"})
    result = predict("photos/a.png", bundle=tmp_path / "swept")
    assert result.stderr.startswith("1 image: ") and result.stderr.endswith(
        "uncertified: a threshold of sweep promises no error rate\n"
    )


def natix(*words: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NATIX, *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=600, **options)


def test_a_reader_that_has_enough_ends_the_call(tiny_bundle: Path, photos: Path) -> None:
    words = [*NATIX, "predict", "--bundle", str(tiny_bundle), *[str(photos / "a.png")] * 3000]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stderr
        assert json.loads(process.stdout.readline())["image"] == str(photos / "a.png")
        process.stdout.close()
        assert process.wait(60) == 1 and process.stderr.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_call_that_is_stopped_leaves_no_file(tiny_bundle: Path, photos: Path, number: int, code: int) -> None:
    out = photos.parent / "out"
    out.mkdir()
    words = [*NATIX, "predict", "--bundle", str(tiny_bundle), "-", "--output", str(out / "o.csv")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin and process.stderr
        process.stdin.write(f"{photos / 'a.png'}\n".encode() * 40)
        process.stdin.flush()
        until = time.monotonic() + 60
        while not list(out.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        assert [path.suffix for path in out.iterdir()] == [".part"]
        process.send_signal(number)
        assert process.wait(60) == code and list(out.iterdir()) == [] and b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_the_base_install_scores_and_says_what_parquet_needs(tiny_bundle: Path, photos: Path) -> None:
    (photos / "list.csv").write_text("image\na.png\n")
    code = HIDE.format(hidden=BEYOND_BASE) + "from natix_lib.cli import main; main()"

    def base(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "predict", "--bundle", str(tiny_bundle), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)

    done = base(photos, photos / "list.csv", "--output", photos.parent / "o.csv")
    assert done.returncode == 0 and len(pd.read_csv(photos.parent / "o.csv")) == 6, done.stderr
    (photos / "list.parquet").write_bytes(b"")
    for words in ([photos, "--output", photos.parent / "o.parquet"], [photos / "list.parquet"]):
        done = base(*words)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: the package pyarrow is missing here: pip install 'natix")
    assert not (photos.parent / "o.parquet").exists()


PATCHED = "from natix_lib.cli import main, rate; rate.BAR_SECONDS = {bar}; rate.LINE_SECONDS = {line}; main()"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_a_bar_while_it_lasts_and_the_summary_after_it(
    tiny_bundle: Path, photos: Path, columns: int
) -> None:
    words = ["predict", "--bundle", str(tiny_bundle), "-o", str(photos.parent / "o.csv"), *[str(photos)] * 12]
    code, text = terminal.run([sys.executable, "-c", PATCHED.format(bar=0, line=30), *words], columns)
    shown = terminal.screen(text, columns)
    assert (
        code == 0 and len(shown) == 2 and shown[0].startswith("60 images: ") and shown[1].startswith("uncertified: ")
    ), shown
    assert re.search(r"images/s, \d\.\d s left", text) and "/60" in text and ("━" in text) == (columns == 80)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.slow
def test_what_is_over_soon_or_shows_its_rows_on_the_terminal_has_no_bar(tiny_bundle: Path, photos: Path) -> None:
    words = ["predict", "--bundle", str(tiny_bundle), str(photos)]
    code, text = terminal.run([*NATIX, *words, "-o", str(photos.parent / "o.csv")], 80)
    assert code == 0 and "\x1b" not in text and len(text.splitlines()) == 2
    code, text = terminal.run([sys.executable, "-c", PATCHED.format(bar=0, line=30), *words], 80)
    assert code == 0 and "\x1b" not in text and len(text.splitlines()) == 7


@pytest.mark.slow
def test_a_log_gets_a_line_now_and_then_and_standard_output_none(tiny_bundle: Path, photos: Path) -> None:
    command = [sys.executable, "-c", PATCHED.format(bar=0, line=0), "predict", "--bundle", str(tiny_bundle)]
    done = subprocess.run([*command, *[str(photos)] * 8], capture_output=True, text=True, cwd=ROOT, timeout=600)
    lines = done.stderr.splitlines()
    assert len(lines) == 42 and len([json.loads(line) for line in done.stdout.splitlines()]) == 40
    assert lines[19].startswith("20 of 40 images, ") and lines[19].endswith(" left") and "\x1b" not in done.stderr
    listed = f"{photos / 'a.png'}\n" * 3
    done = subprocess.run([*command, "-"], capture_output=True, text=True, cwd=ROOT, timeout=600, input=listed)
    assert done.stderr.startswith("1 images, ") and "left" not in done.stderr


def test_a_line_of_a_log_comes_every_30_seconds(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with rate.Rate(100, bar=True) as counted:
        for _ in range(100):
            now += 1
            counted.add()
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "30 of 100 images, 1.0 images/s, 1m 10s left",
        "60 of 100 images, 1.0 images/s, 40 s left",
        "90 of 100 images, 1.0 images/s, 10 s left",
    ]


def peak(words: list[str], listed: Iterator[bytes]) -> int:
    """Peak memory of a call in kB, standard input being these lines."""
    code = (
        "import atexit, resource, sys; from natix_lib.cli import main\n"
        "atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", *words], input=b"".join(listed), capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), "orange").save(tmp_path / "a.jpg")
    line = f"{tmp_path / 'a.jpg'}\n".encode()
    for ending in ("csv", "jsonl"):
        words = ["--bundle", str(tiny_bundle), "-", "--output"]
        few = peak([*words, str(tmp_path / f"few.{ending}")], iter([line] * 200))
        many = peak([*words, str(tmp_path / f"many.{ending}")], iter([line] * 10_000))
        assert many - few < 20_000, f"{many - few} kB more for 9,800 images"  # decoded they are 3.5 GB
        assert len((tmp_path / f"many.{ending}").read_text().splitlines()) >= 10_000


def test_images_unlike_those_of_val_calib_end_with_a_line_and_with_a_code_of_their_own_where_asked(
    predict: Predict, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    reference = {"images": 2_000, "first_level": -16, "counts": [2_000], "classes": [1_000, 1_000], "unit": "image"}
    unlike = changed_bundle(tiny_bundle, tmp_path / "unlike", "drift.json", **reference)
    images = [photos / "a.png"] * 60
    told = predict(*images, bundle=unlike)
    assert told.exit_code == 0 and "what it promises no longer applies" in told.stderr.splitlines()[-1]
    assert predict("--fail-on-drift", *images, bundle=unlike).exit_code == 3
    assert predict("--fail-on-drift", *images, "gone.jpg", bundle=unlike).exit_code == 2
    alike = predict("--fail-on-drift", photos)
    assert alike.exit_code == 0 and "drift" not in alike.stderr


def test_a_bundle_without_a_reference_says_that_drift_is_not_watched(
    predict: Predict, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    old = changed_bundle(tiny_bundle, tmp_path / "old", "drift.json")
    (old / "drift.json").unlink()
    seal(old, read_json(old / "bundle.json"))
    told = predict(photos, bundle=old)
    assert told.exit_code == 0 and told.stderr.splitlines()[-1].startswith("drift is not watched: the bundle has no")
    refused = predict("--fail-on-drift", photos, bundle=old)
    assert isinstance(refused.exception, ConfigError) and "needs a bundle with drift.json" in str(refused.exception)
