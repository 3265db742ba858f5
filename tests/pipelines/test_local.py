import json
import os
import signal
from pathlib import Path

import pytest
from kfp import dsl
from kfp.local import cache as kfp_cache
from kfp.local import subprocess_task_handler

from natix_lib import config
from natix_lib.contracts import SCHEMA_VERSION
from natix_lib.errors import ConfigError, NatixError, StorageError
from natix_lib.files import write_json
from natix_pipelines import local
from natix_pipelines.run_log import RunLog
from tests.short_stack import on_a_short_stack
from tests.street_sets import write_images


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.logs: list[Path] = []

    def started(self, step: str) -> None:
        self.events.append(f"started {step}")

    def line(self, step: str, text: str) -> None:
        self.lines.append(f"{step}: {text}")

    def repeated(self, step: str) -> None:
        self.events.append(f"repeated {step}")

    def note(self, step: str, text: str) -> None:
        self.notes.append(f"{step}: {text}")

    def finished(self, step: str, cached: bool, seconds: float) -> None:
        self.events.append(f"{'cached' if cached else 'finished'} {step}")

    def failed(self, step: str, log: Path) -> None:
        self.events.append(f"failed {step}")
        self.logs.append(log)


def settings(data_root: Path, backbone: Path | str = "owner/vit", **model: object) -> config.Config:
    values = {
        "data": {"data_root": str(data_root)},
        "model": {"backbone_id": str(backbone), "image_size": 32, **model},
        "export": {"policy": "sweep"},
    }
    return config.parse(config.Config, values)


@pytest.mark.slow
def test_a_failed_step_gives_its_own_error_back_and_leaves_no_output(tmp_path: Path, tiny_backbone: Path) -> None:
    root = write_images(tmp_path / "source", groups=4)
    display = Recorder()
    with pytest.raises(NatixError, match="^model.num_classes is 13 but the data has 2: None, Roadwork$"):
        on_a_short_stack(
            local.run, settings(root, tiny_backbone, num_classes=13), tmp_path / "out", tmp_path / "cache", display
        )
    assert not (tmp_path / "out").exists() and "failed ingest" in display.events


@pytest.mark.slow
def test_a_step_that_has_finished_is_not_repeated_after_another_has_failed(tmp_path: Path, tiny_backbone: Path) -> None:
    root = write_images(tmp_path / "source", groups=2)
    events = []
    for _ in range(2):
        display = Recorder()
        with pytest.raises(NatixError, match="^class None has 1 groups, 4 splits need"):
            on_a_short_stack(
                local.run, settings(root, tiny_backbone, num_classes=2), tmp_path / "out", tmp_path / "cache", display
            )
        events.append(display.events)
    assert "finished ingest" in events[0] and "cached ingest" in events[1] and "failed split" in events[1]


def test_an_output_that_could_not_take_its_place_at_the_end_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    for output, what in ((Path(), "the working folder"), (tmp_path / "link", "a link")):
        with pytest.raises(ConfigError, match=f"^output {output} is {what}: name a folder below it"):
            local.require_place(output)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(StorageError, match="^cannot write .*new/run: Permission denied$"):
        local.require_place(tmp_path / "new" / "run")


def test_an_existing_output_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle.json").touch()
    display = Recorder()
    with pytest.raises(ConfigError, match=r"output .*out exists: name another folder, or remove it"):
        local.run(settings(tmp_path), tmp_path / "out", tmp_path / "cache", display)
    assert display.events == []


def test_data_that_is_not_there_is_told_before_any_work(tmp_path: Path) -> None:
    display = Recorder()
    with pytest.raises(StorageError, match=r"gone does not exist"):
        local.run(settings(tmp_path / "gone"), tmp_path / "out", tmp_path / "cache", display)
    assert display.events == []


def test_another_earlier_division_at_the_same_place_is_another_argument_of_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"artifact": "splits", "schema_version": SCHEMA_VERSION, "dataset_fingerprint": "x", "warnings": []}
    splits |= {"class_names": ["None", "Roadwork"], "roles": {"TEST": ["a.jpg"]}, "groups": {"a.jpg": "a.jpg"}}
    monkeypatch.chdir(tmp_path)
    before = settings(tmp_path)
    before = before.model_copy(update={"split": before.split.model_copy(update={"previous": "splits.json"})})
    versions = []
    for name in ("a.jpg", "b.jpg"):
        write_json(tmp_path / "splits.json", splits | {"roles": {"TEST": [name]}})
        absolute, arguments = local.prepared(before)
        versions.append(arguments["previous_fingerprint"])
        assert absolute.split.previous == str(tmp_path / "splits.json")
    assert versions[0] != versions[1]
    (tmp_path / "splits.json").unlink()
    with pytest.raises(StorageError, match=r"splits.json does not exist"):
        local.prepared(before)


def test_images_that_came_below_the_same_folder_are_another_argument_of_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"1")
    before = local.prepared(settings(tmp_path))[1]
    assert local.prepared(settings(tmp_path))[1] == before
    (tmp_path / "2.jpg").write_bytes(b"2")
    after = local.prepared(settings(tmp_path))[1]
    assert {name for name in before if before[name] != after[name]} == {"data_fingerprint"}


def test_a_text_that_kfp_rewrites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config value may contain 'python3'"):
        local.run(settings(tmp_path / "python3.11"), tmp_path / "out", tmp_path / "cache", Recorder())


def test_the_log_of_kfp_becomes_events_and_the_last_error(tmp_path: Path) -> None:
    display = Recorder()
    log = RunLog(display)
    log.write("12:00:00.1 - INFO - Executing task \x1b[96m'split'\x1b[0m\n    [KFP Executor 2025 INFO]: noise\n")
    log.write("    images: 1/2\n12:00 - INFO - Task 'split' finished")
    log.notes = ["34 groups"]
    assert display.events == ["started split"]
    log.write(" with status SUCCESS\n12:00:00.1 - INFO - Executing task 'fetch'\n")
    log.write("    Traceback (most recent call last):\n      File x, line 1\n    ValueError: of a thread\n")
    log.write("    error: split TEST holds no image\n    [W] a thread was still there\n\n")
    assert display.events == ["started split", "finished split", "started fetch"]
    assert display.lines[0] == "split: images: 1/2" and display.notes == ["split: 34 groups"]
    error = log.error(tmp_path)
    assert str(error) == "split TEST holds no image"
    assert display.events[-1] == "failed fetch" and display.logs == [tmp_path / "failed.log"]
    assert "images: 1/2" in display.logs[0].read_text() and "split: 34 groups" in log.text()


def test_a_failure_that_is_no_error_of_ours_names_the_step_and_the_log(tmp_path: Path) -> None:
    log = RunLog(Recorder())
    log.write("x - INFO - Executing task 'train'\n    MemoryError: no memory\n")
    error = log.error(tmp_path)
    assert type(error) is NatixError
    assert str(error) == "step train failed: MemoryError: no memory"
    assert "MemoryError" in (tmp_path / "failed.log").read_text()


@pytest.mark.parametrize(
    "name, hint", [("SIGKILL", "for want of memory: try a smaller batch_size"), ("SIGSEGV", "SIGSEGV")]
)
def test_a_step_that_a_signal_ended_is_said_to_be_so(tmp_path: Path, name: str, hint: str) -> None:
    log = RunLog(Recorder())
    log.write("x - INFO - Executing task 'train'\n    epoch 3: train/loss 0.1\n    Killed\n")
    log.code = 128 + signal.Signals[name]
    assert str(log.error(tmp_path)).startswith(f"step train was ended by {name}") and hint in str(log.error(tmp_path))


def test_only_the_failing_steps_own_error_is_given(tmp_path: Path) -> None:
    log = RunLog(Recorder())
    trace = "    Traceback (most recent call last):\n      File x, line 1\n    {}\n    a late warning\n"
    log.write("x - INFO - Executing task 'split'\n    error: another step's\n")
    log.write("x - INFO - Executing task 'train'\n" + trace.format("ValueError: 3 is no matrix"))
    assert str(log.error(tmp_path)) == "step train failed: ValueError: 3 is no matrix"


def test_a_library_that_said_error_and_went_on_is_not_the_reason(tmp_path: Path) -> None:
    log = RunLog(Recorder())
    log.write("x - INFO - Executing task 'train'\n    error: a library said this and went on\n")
    log.write(
        "    Traceback (most recent call last):\n      File x, line 1\n    ValueError: the bug\n    a late line\n"
    )
    assert str(log.error(tmp_path)) == "step train failed: ValueError: the bug"


def test_a_user_without_a_home_is_told_to_name_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_000)
    with pytest.raises(ConfigError, match="no home folder: name a folder with --cache or XDG_CACHE_HOME"):
        local.run(settings(tmp_path), tmp_path / "out", None, Recorder())
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cache .*natix cannot be written, Not a directory: name a folder"):
        local.run(settings(tmp_path), tmp_path / "out", None, Recorder())


def test_what_follows_from_a_division_is_noted_when_split_has_run_and_when_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_after_split", lambda splits, config: [f"told of {splits.name}"])
    splits = tmp_path / "splits"
    splits.write_text("{}")
    artifact = {"artifacts": [{"name": "splits", "uri": str(splits)}]}
    commands = [
        ["sh", "-c", code, "sh", "--executor_input", json.dumps({"outputs": {"artifacts": artifacts}})]
        for code, artifacts in (("true", {"splits": artifact}), ("exit 1", {"splits": artifact}), ("true", {}))
    ]
    display = Recorder()
    log = RunLog(display)
    with local._replaced(tmp_path / "artifacts", log, settings(tmp_path)):
        notes = []
        for command in commands:
            log.notes = []
            subprocess_task_handler.run_local_subprocess(command)
            notes.append(log.notes)
        steps = kfp_cache.get_local_cache()
        key = steps.compute_key("comp-split", "image", ["run"], {})
        steps.put(key, {"splits": dsl.Artifact(name="splits", uri=str(splits))})
        assert set(steps.get(key)) == {"splits"}
    assert notes == [["told of splits"], [], []]
    assert display.events == ["cached split"] and display.notes == ["split: told of splits"]
