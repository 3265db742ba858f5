import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from natix_pipelines import step_process
from tests.processes import MARK, PATIENCE, all_gone

ROOT = Path(__file__).parent.parent.parent
RUN = "import sys; from natix_pipelines.step_process import run; sys.exit(run(sys.argv[1:]))"
# a shell, as KFP starts one, with a process that is told to stop and takes a moment, and one of its own below that
STEP = f"""{sys.executable} -c '
import signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
def stop(*_):
    time.sleep(0.3)
    print("checkpoint written", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("at work", flush=True)
time.sleep(60)
'; true"""


def test_a_step_gives_its_output_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert step_process.run(["sh", "-c", "echo $NAME; printf '\\377'; exit 3"], {"NAME": "one"}) == 3
    assert capsys.readouterr().out.startswith("one\n\ufffd")


def test_what_a_step_writes_to_the_temporary_folder_goes_with_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert step_process.run(["sh", "-c", "cd $(mktemp -d) && touch left && pwd"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/natix-") and not list(tmp_path.iterdir())


def test_a_step_that_a_signal_ended_gives_128_and_its_number() -> None:
    assert step_process.run(["sh", "-c", "kill -KILL $$"]) == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_nothing_of_a_step_outlives_its_run(number: signal.Signals, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    out = tmp_path / "out"
    stoppable = "from natix_lib.stopping import stoppable\nwith stoppable(): exec(sys.argv.pop(1))"
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {stoppable}", RUN, "sh", "-c", STEP],
            stdout=file,
            env={**os.environ, MARK: mark, "PYTHONPATH": str(ROOT)},
        )
        while "at work" not in out.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        code = process.wait(PATIENCE)
    if number in (signal.SIGTERM, signal.SIGINT):
        assert code == 128 + number and "checkpoint written" in out.read_text()
    assert all_gone(mark, 40) == []
