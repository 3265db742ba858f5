import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from natix_lib.contracts import write_manifest
from natix_lib.run_cache import RECORD, read_record
from natix_pipelines.step_cache import StepCache

MANIFEST: dict[str, Any] = {"rows": 1, "index_sha256": "0" * 64}


def task(folder: Path, run: str, content: str = "pixels") -> dict[str, Any]:
    """What a task gives: images in two files, a single file, and a parameter."""
    data, labels = folder / run / "train" / "images", folder / run / "train" / "val_calib_labels"
    data.mkdir(parents=True)
    (data / "part.arrow").write_text(content)
    (data / "other.arrow").write_text("id,reason")
    write_manifest(data, "images", MANIFEST)
    labels.write_text("labels")
    return {
        "images": dsl.Dataset(name="images", uri=str(data)),
        "val_calib_labels": dsl.Artifact(name="val_calib_labels", uri=str(labels)),
        "settings": {"alpha": 0.1},
    }


def key(cache: StepCache, arguments: dict[str, Any]) -> str:
    return cache.compute_key("comp-train", "image", ["run"], arguments)


def kept(folder: Path) -> tuple[StepCache, str, dict[str, Any]]:
    cache = StepCache(str(folder / "steps"))
    name, outputs = key(cache, {}), task(folder, "first")
    cache.put(name, outputs)
    return cache, name, outputs


def test_what_a_task_gave_is_given_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, _, outputs = kept(tmp_path)
    later = StepCache(str(tmp_path / "steps"))
    again = later.get(key(later, {})) or {}
    assert again["settings"] == {"alpha": 0.1}
    assert [again[k].path for k in ("images", "val_calib_labels")] == [
        outputs[k].path for k in ("images", "val_calib_labels")
    ]
    assert cache.get("0" * 64) is None and not caplog.records


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a file of a folder": lambda run: flip(run / "images" / "part.arrow"),
    "a file too many": lambda run: (run / "images" / "new").touch(),
    "a file too few": lambda run: (run / "images" / "other.arrow").unlink(),
    "the manifest": lambda run: (run / "images" / "images.json").write_text("{}"),
    "no manifest": lambda run: (run / "images" / "images.json").unlink(),
    "a folder and its manifest": lambda run: (
        (run / "images" / "part.arrow").write_text("other"),
        write_manifest(run / "images", "images", MANIFEST),
    ),
    "a single file": lambda run: flip(run / "val_calib_labels"),
    "a file cut short": lambda run: (run / "val_calib_labels").write_text("lab"),
    "a file gone": lambda run: (run / "val_calib_labels").unlink(),
    "all gone": lambda run: shutil.rmtree(run),
    "the entry": lambda run: next((run.parent.parent / "steps").glob("*.json")).write_text("{"),
    "the record": lambda run: (run / "images.sha256").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_changed_is_not_used_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    cache, name, _ = kept(tmp_path)
    DAMAGE[damage](tmp_path / "first" / "train")
    assert cache.get(name) is None
    assert "cached train was changed: repeated" in [line.getMessage() for line in caplog.records]
    cache.put(name, task(tmp_path, "second"))
    assert (cache.get(name) or {})["images"].path == str(tmp_path / "second" / "train" / "images")


def test_a_task_that_was_killed_while_its_result_was_kept_is_not_taken_for_done(tmp_path: Path) -> None:
    cache = StepCache(str(tmp_path / "steps"))
    outputs = task(tmp_path, "first")
    (tmp_path / "first" / "train" / "images.sha256").write_text("")
    assert cache.get(key(cache, {})) is None
    (tmp_path / "steps" / ".kfp_cache_x.tmp").write_text("{")
    assert cache.get(key(cache, {})) is None and outputs


def test_the_same_bytes_at_another_place_are_the_same_input_and_other_bytes_are_not(tmp_path: Path) -> None:
    cache = StepCache(str(tmp_path / "steps"))
    first, again = task(tmp_path, "first"), task(tmp_path, "again")
    other = task(tmp_path, "other", content="others")
    assert key(cache, first) == key(cache, again) != key(cache, other)
    flip(Path(again["val_calib_labels"].path))
    assert key(cache, first) != key(cache, again)


def test_how_long_a_step_took_is_kept_with_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 112.34, 500.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    _, name, outputs = kept(tmp_path)
    hits: list[tuple[str, list[str], float]] = []
    again = StepCache(str(tmp_path / "steps"), lambda step, made, seconds: hits.append((step, list(made), seconds)))
    assert key(again, {}) == name and again.get(name)
    assert hits == [("train", list(outputs), 12.3)]


def test_a_record_says_of_which_code_work_and_images_a_result_is(tmp_path: Path) -> None:
    cache = StepCache(str(tmp_path / "steps"), work={"epochs": 3})
    name = cache.compute_key("comp-ingest", "natix-local-python:0123abcd", ["run"], {"settings": {"n": 2}})
    cache.put(name, task(tmp_path, "first"))
    record = read_record(tmp_path / "steps" / f"{name}{RECORD}")
    assert record.pop("seconds") >= 0
    assert record == {"step": "ingest", "code": "0123abcd", "work": {"epochs": 3}, "images": MANIFEST["rows"]}


def test_what_a_record_says_changes_no_key_and_a_lost_record_no_result(tmp_path: Path) -> None:
    cache, name, _ = kept(tmp_path)
    (tmp_path / "steps" / f"{name}{RECORD}").write_text("{")
    assert key(cache, {}) == name and cache.get(name)


def test_an_entrys_time_says_when_it_was_last_used(tmp_path: Path) -> None:
    cache, name, _ = kept(tmp_path)
    entry = tmp_path / "steps" / f"{name}.json"
    os.utime(entry, (1, 1))
    assert cache.get(name) and time.time() - entry.stat().st_mtime < 60
