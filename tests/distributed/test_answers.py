"""An answer is computed once: what becomes of it when it cannot be taken, when cleaning up fails, when others come."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_lib import storage
from natix_lib.distributed import jobs, life, trainjob
from natix_lib.distributed.exchange import FIGURES, INPUTS, REQUEST, TENSORS
from natix_lib.distributed.jobs import CLOSED
from natix_lib.distributed.life import REMOVING, WAITING, Waiting
from natix_lib.errors import StorageError
from tests.distributed.test_sharing import FIGURE, NODE, left_behind
from tests.distributed.test_sharing import ask as ask_fixture
from tests.distributed.test_sharing import kubernetes as kubernetes_fixture
from tests.kubernetes_api import Cluster, nodes

ask, kubernetes = ask_fixture, kubernetes_fixture
Ask = Callable[..., dict[str, Any]]
NAME = trainjob.job_name("train", {"settings": {}, INPUTS: [], "processes": 1}, {}, nodes())


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def told_to_stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


@pytest.mark.parametrize(
    ("failing", "error"), [(full, OSError), pytest.param(told_to_stop, SystemExit, marks=pytest.mark.slow)]
)
def test_an_answer_that_was_not_taken_stays_for_the_next_try(
    failing: Callable[..., None], error: type[BaseException], kubernetes: Cluster, ask: Ask, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
        patch.setattr(trainjob, "answer", failing)
        ask()
    assert ask() == FIGURE
    assert len(kubernetes.created) == 1 and not left_behind(kubernetes, tmp_path)


def test_a_clean_up_that_fails_is_a_warning_and_the_next_who_asks_does_it(
    kubernetes: Cluster, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(uri: str) -> None:
        raise StorageError(f"{uri}: 403 storage.objects.delete denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "remove_folder", denied)
        assert ask() == FIGURE
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "inputs: 403 storage.objects.delete denied; TrainJob" in warning and warning.endswith("is left behind")
    assert CLOSED in kubernetes.jobs[NAME]["metadata"]["annotations"]
    assert ask() == FIGURE
    assert len(kubernetes.created) == 1 and not left_behind(kubernetes, tmp_path)


def test_a_whole_answer_counts_though_another_node_failed(kubernetes: Cluster, ask: Ask, tmp_path: Path) -> None:
    wait = "import os, pathlib, sys, time\nfigures = pathlib.Path(sys.argv[2]) / 'figures.json'\n"
    fail = "while os.environ['PET_NODE_RANK'] == '1':\n    if figures.exists(): sys.exit(1)\n    time.sleep(0.01)\n"
    kubernetes.command = ["python3", "-c", wait + fail + NODE, *kubernetes.command[3:]]
    assert ask() == FIGURE
    assert len(kubernetes.created) == 1 and not left_behind(kubernetes, tmp_path)


def test_the_answer_is_the_last_to_be_removed_and_others_marks_are_not(tmp_path: Path) -> None:
    for name in (f"{INPUTS}/a", REQUEST, FIGURES, TENSORS, f"{WAITING}/other.1"):
        storage.write_file(f"{tmp_path}/{name}", b"")
    removed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("remove_folder", "remove_file"):
            patch.setattr(storage, verb, lambda uri: removed.append(Path(uri).name))
        trainjob._remove_folder(str(tmp_path))
    assert removed[0] == INPUTS and removed[-2:] == [FIGURES, TENSORS]
    trainjob._remove_folder(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["other.1"]


@pytest.mark.slow
def test_who_comes_while_a_folder_is_removed_brings_nothing_before_it_is_gone(
    kubernetes: Cluster, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "GONE_SECONDS", 0.0)
    uri = str(tmp_path / "shared" / NAME)
    order: list[str] = []
    put = trainjob._ask

    def ask_seen(*question: Any) -> None:
        order.append("asked")
        put(*question)

    monkeypatch.setattr(trainjob, "_ask", ask_seen)
    remover = Waiting(uri, REMOVING)

    def remove() -> None:
        time.sleep(5 * life.BEAT_SECONDS)
        order.append("removed")
        remover.end()

    with remover:
        thread = threading.Thread(target=remove)
        thread.start()
        assert ask() == FIGURE
        thread.join()
    assert order == ["removed", "asked"] and not left_behind(kubernetes, tmp_path)


@pytest.mark.slow
def test_of_a_remover_that_was_killed_the_mark_grows_old(
    kubernetes: Cluster, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "BEAT_SECONDS", 0.01)
    for kind in (REMOVING, WAITING):  # and the mark of the pod before this one of a step that is tried again
        storage.write_file(f"{tmp_path}/shared/{NAME}/{kind}/killed.1", b"")
    assert ask() == FIGURE
    assert len(kubernetes.created) == 1 and not left_behind(kubernetes, tmp_path)
