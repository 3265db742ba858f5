"""`natix run` on a terminal, stopped, killed, and with a cache that was changed: real runs, so in `make test-slow`."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from natix_lib import config
from natix_lib.bundle.runtime import Bundle
from natix_lib.decisions.promise import promise
from natix_lib.files import read_json, sha256_file
from natix_pipelines import local
from natix_pipelines.training import steps_of
from tests import terminal
from tests.cli.test_cli import write_config
from tests.pipelines.test_local import Recorder
from tests.processes import MARK, PATIENCE, alive, all_gone
from tests.short_stack import on_a_short_stack
from tests.street_sets import write_images
from tests.test_end_to_end import SMALL_EXPLORA

pytestmark = pytest.mark.slow
beside_its_run = pytest.mark.xdist_group("run ends")  # in one process, so that the run they start from is made once
ROOT = Path(__file__).parents[2]
NATIX = [sys.executable, "-m", "natix_lib.cli"]
STEPS = steps_of(with_explora=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> tuple[Path, str]:
    """A folder with a config, a cache and the run `out`; and what a terminal of 80 columns was written."""
    folder = tmp_path_factory.mktemp("terminal")
    path = write_config(folder, write_images(folder / "source", groups=40), tiny_backbone)
    code, text = terminal.run(command(folder, path), 80)
    assert code == 0, text
    return folder, text


def command(folder: Path, path: Path, out: str = "out", *overrides: str, cache: str = "cache") -> list[str]:
    places = ["-c", str(path), "-o", str(folder / out), "--cache", str(folder / cache)]
    return [*NATIX, "run", *places, *(word for text in overrides for word in ("-s", text))]


@beside_its_run
def test_a_terminal_shows_a_line_for_each_step_then_the_result(finished: tuple[Path, str]) -> None:
    folder, text = finished
    shown = terminal.screen(text, 80)
    done = [line.split()[1] for line in shown if line.startswith("done ")]
    assert sorted(done) == sorted(STEPS) and any(line.startswith("TEST, 24 images") for line in shown)
    assert shown[-1].endswith("out/report.html") and len(shown) < 35
    told = f"promise   {promise(read_json(folder / 'out' / 'calibrate' / 'scrcparams.json'))}"
    assert told.startswith(("promise   certified: of the accepted", "promise   uncertified: the accept rule"))
    assert any(told.startswith(line) for line in shown if line.startswith("promise "))
    assert any(re.fullmatch(r"done    train       .*  c(pu|uda), .*", line) for line in shown)
    at_work = terminal.screen(terminal.while_at_work(text, "TEST images  "), 80)
    assert re.fullmatch(r". evaluate  .* s  TEST images  [━─]{24}  .*\d+/24.*", at_work[-1])
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    log = (folder / "out" / "run.log").read_text()
    assert "Executing task 'train'" in log and "epochs: 10/10 train/loss" in log and "\x1b" not in log


@beside_its_run
@pytest.mark.parametrize("columns", [80, 40])
def test_the_error_of_a_late_step_is_the_last_line_of_a_terminal(finished: tuple[Path, str], columns: int) -> None:
    folder, _ = finished
    failing = command(folder, folder / "config.yaml", "none", "export.parity_tolerance=1e-12")
    code, text = terminal.run(failing, columns)
    shown = terminal.screen(text, columns)
    assert code == 2 and shown[-1].startswith("error: the ONNX model differs from") and len(shown) <= len(STEPS) + 8
    assert text.count("error: ") == 1 and shown[-3].startswith("failed  export") and "Traceback" not in text
    assert shown[-2] == f"log     {folder / 'cache' / 'failed.log'}" and Path(shown[-2].split()[1]).is_file()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l") and not (folder / "none").exists()


def test_the_reason_of_damaged_data_is_the_last_line_of_a_terminal(tmp_path: Path, tiny_backbone: Path) -> None:
    root = write_images(tmp_path / "source", groups=4)
    for path in root.glob("*.png"):
        path.write_bytes(b"no picture")
    code, text = terminal.run(command(tmp_path, write_config(tmp_path, root, tiny_backbone)), 40)
    shown = terminal.screen(text, 40)
    error = next(number for number, line in enumerate(shown) if line.startswith("error: "))
    assert code == 2 and shown[error].startswith("error: 12 of 12 images cannot be used")
    assert shown[error - 2].startswith("failed  ingest") and len(shown) <= 13 and "Traceback" not in text


@beside_its_run
def test_an_edit_of_a_delivered_folder_reaches_neither_the_cache_nor_another_run(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    model = folder / "out" / "bundle" / "model.onnx"
    content = model.read_bytes()
    assert all(path.stat().st_nlink == 1 for path in (folder / "out").rglob("*") if path.is_file())
    with model.open("r+b") as file:
        file.write(b"edited")
    display = Recorder()
    on_a_short_stack(local.run, config.load(folder / "config.yaml"), folder / "again", folder / "cache", display)
    assert sorted(event for event in display.events if event.startswith("cached")) == sorted(
        f"cached {step}" for step in STEPS
    )
    assert (folder / "again" / "bundle" / "model.onnx").read_bytes() == content


@beside_its_run
def test_a_damaged_cache_is_repeated_and_steps_that_read_the_same_are_not(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    (part,) = (folder / "cache").rglob("ingest/images/*.arrow")
    before = sha256_file(part)
    part.write_bytes(part.read_bytes()[:-2])
    (policy,) = (folder / "cache").rglob("calibrate/scrcparams")
    policy.unlink()
    display = Recorder()
    on_a_short_stack(local.run, config.load(folder / "config.yaml"), folder / "mended", folder / "cache", display)
    assert {event for event in display.events if event.startswith("repeated")} == {
        "repeated ingest", "repeated calibrate",
    }  # fmt: skip
    assert {event for event in display.events if event.startswith("finished")} == {
        "finished ingest", "finished calibrate",
    }  # fmt: skip
    assert "cached ingest was changed: repeated" in (folder / "mended" / "run.log").read_text()
    assert before in {sha256_file(path) for path in (folder / "cache").rglob("ingest/images/*.arrow")}


def start(arguments: list[str], mark: str, until: str) -> subprocess.Popen[str]:
    """Start a run with piped output, and wait until it shows `until`, or a process whose command line holds it."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, MARK: mark}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while not any(until in line for line in alive(mark)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("step", ["ingest", "adapt"])
def test_a_stopped_run_leaves_no_process_and_no_folder_and_goes_on(
    tmp_path: Path, tiny_backbone: Path, number: signal.Signals, step: str
) -> None:
    path = write_config(tmp_path, write_images(tmp_path / "source", groups=40), tiny_backbone)
    checkpoints = f"explora.checkpoint_root={tmp_path / 'checkpoints'}"
    long_adapt = [*SMALL_EXPLORA, "explora.steps=4000", "data.dataloader.num_workers=1", checkpoints]
    mark = uuid.uuid4().hex
    process = start(command(tmp_path, path, "out", *long_adapt), mark, f"--function_to_execute {step}")
    process.send_signal(number)
    _, shown = process.communicate(timeout=PATIENCE)
    assert all_gone(mark, 30) == []
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert shown.strip().splitlines()[-1] == "stopped: the same command goes on after the last step that is done"
        assert "Traceback" not in shown and "error:" not in shown
    if (number, step) == (signal.SIGTERM, "ingest"):
        display = Recorder()
        on_a_short_stack(local.run, config.load(path), tmp_path / "out", tmp_path / "cache", display)
        assert "finished ingest" in display.events and Bundle.load(tmp_path / "out" / "bundle")


@beside_its_run
def test_twenty_kills_at_random_moments_leave_no_process_and_the_same_command_ends_with_the_same_bundle(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    whole = sha256_file(folder / "out" / "bundle" / "bundle.json")
    again = command(folder, folder / "config.yaml", "killed", cache="cache of the killed")
    moments = random.Random(14)
    for kill in range(20):
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[kill % 3]
        mark, moment = uuid.uuid4().hex, moments.uniform(0, 25)
        process = subprocess.Popen(
            again, cwd=ROOT, env={**os.environ, MARK: mark}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.send_signal(number)
        _, shown = process.communicate(timeout=PATIENCE)
        left = all_gone(mark, 10 if number == signal.SIGKILL else 0)
        last = (shown.strip().splitlines() or [""])[-1]
        print(f"{kill + 1:2} {number.name:<8}{moment:5.1f} s  exit {process.returncode:4}  left {len(left)}  {last}")
        assert left == []
        if (folder / "killed").exists():  # it was whole before: begin anew
            assert process.returncode in (0, -number)  # to print and to end takes a moment more
            assert sha256_file(folder / "killed" / "bundle" / "bundle.json") == whole
            shutil.rmtree(folder / "killed")
            shutil.rmtree(folder / "cache of the killed")
        else:
            assert process.returncode in (128 + number, -number)
    assert subprocess.run(again, cwd=ROOT, capture_output=True).returncode == 0
    assert sha256_file(folder / "killed" / "bundle" / "bundle.json") == whole


def test_ctrl_c_on_a_terminal_stops_a_run_and_once_more_at_once(tmp_path: Path, tiny_backbone: Path) -> None:
    path = write_config(tmp_path, write_images(tmp_path / "source", groups=4), tiny_backbone)
    mark = uuid.uuid4().hex
    process, seen = terminal.start(command(tmp_path, path), 80, ROOT, **{MARK: mark})
    while not any("--function_to_execute" in line for line in alive(mark)):
        assert process.poll() is None, seen.text()
        time.sleep(0.1)
    seen.press("\x03")
    time.sleep(0.05)
    seen.press("\x03")
    assert process.wait(PATIENCE) == 130 and all_gone(mark, 5) == []
    shown = terminal.screen(seen.text().replace("^C", ""), 80)
    assert shown[-1] == "stopped: the same command goes on after the last step that is done"
    assert "Traceback" not in "\n".join(shown)


@beside_its_run
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_adapt_that_is_stopped_by_itself_leaves_no_process_and_does_not_pass_for_done(
    finished: tuple[Path, str], number: signal.Signals
) -> None:
    folder, _ = finished
    artifacts = {path.name: path for path in (folder / "cache").rglob("*") if path.name.endswith("_set")}
    words = ["--train-set", str(artifacts["train_set"])]
    options = [*SMALL_EXPLORA, "explora.steps=4000", "data.dataloader.num_workers=2"]
    arguments = [*NATIX, "adapt", "-c", str(folder / "config.yaml"), "-o", str(folder / f"adapt {number}"), *words]
    arguments += ["--unlabelled-set", str(artifacts["unlabelled_set"])]
    arguments += ["--backbone", str(folder / "out" / "fetch" / "backbone")]
    arguments += [word for text in options for word in ("-s", text)]
    mark = uuid.uuid4().hex
    process = subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while not (line := process.stdout.readline()).startswith("steps: "):
        assert line, process.wait()
    assert len(alive(mark)) >= 3  # with its workers
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    ended = -number if number == signal.SIGKILL else 128 + number
    assert process.returncode == ended and all_gone(mark, 10) == []
