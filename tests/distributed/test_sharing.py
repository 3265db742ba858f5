"""Who shares a TrainJob, who removes it, and whose it is; nodes are small programs that answer at once."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from natix_lib import storage
from natix_lib.distributed import jobs, life, trainjob
from natix_lib.distributed.exchange import FIGURES, leave_answer
from natix_lib.distributed.jobs import CLOSED, POD_NAME, Job, outcome
from natix_lib.distributed.life import ABANDONED, REMOVING, Waiting
from natix_lib.distributed.trainjob import compute_on_nodes
from natix_lib.errors import TrainingError
from tests.distributed.test_trainjob import use_kubeconfig
from tests.kubernetes_api import Cluster, cluster, nodes

NODE = """import pathlib, shutil, sys
folder, (source, uri) = pathlib.Path, sys.argv[1:]
for name in ("tensors.safetensors", "figures.json"):
    shutil.copy(folder(source) / name, folder(uri) / name)
"""
FIGURE = {"value": 7}


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "answer").mkdir()
    leave_answer(tmp_path / "answer", {"x": torch.ones(2)}, FIGURE)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(life, "BEAT_SECONDS", 0.05)
    with cluster(tmp_path / "cluster") as started:
        use_kubeconfig(monkeypatch, started.kubeconfig)
        started.command = ["python3", "-c", NODE, str(tmp_path / "answer")]
        yield started


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def ask(run: str = "") -> dict[str, Any]:
        """The figures that a launcher gets; in the pod of a run where one is named."""
        monkeypatch.setenv(POD_NAME, run) if run else monkeypatch.delenv(POD_NAME, raising=False)
        place = nodes(shared_root=str(tmp_path / "shared"))
        return compute_on_nodes("train", "worker", {}, {}, 1, place)[1]

    return ask


def folder_of(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "shared").iterdir()
    return folder


def name_of(kubernetes: Cluster) -> str:
    return str(kubernetes.created[0]["metadata"]["name"])


def left_behind(kubernetes: Cluster, tmp_path: Path) -> list[Any]:
    shared = tmp_path / "shared"
    return [*kubernetes.jobs, *([file for file in shared.rglob("*") if file.is_file()] if shared.exists() else [])]


def test_a_conflict_is_an_adoption(kubernetes: Cluster, ask: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    kubernetes.rival = True
    assert ask() == FIGURE
    assert len(kubernetes.created) == 1 and not left_behind(kubernetes, tmp_path)


def test_a_job_belongs_to_the_workflow_of_every_run_that_waits(
    kubernetes: Cluster, ask: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes.launchers = {"pod-a": "a", "pod-b": "b"}
    assert ask("pod-a") == FIGURE
    (job,) = kubernetes.created
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-a", "uid": "a"}

    kubernetes.create({**job, "metadata": {"name": job["metadata"]["name"]}, "spec": job["spec"]})
    seen = {}
    for run in ("a", "b"):
        monkeypatch.setenv(POD_NAME, f"pod-{run}")
        seen[run] = Job(job["metadata"]["name"])
        assert seen[run].adopt(seen[run].read() or {})
    again = seen["a"].read() or {}
    assert seen["a"].adopt(again) and not seen["a"].adopt(again)  # the version has moved on
    kubernetes.collect("b")
    assert [each["uid"] for each in (seen["a"].read() or {})["metadata"]["ownerReferences"]] == ["a"]
    kubernetes.collect("a")
    assert not kubernetes.jobs


def test_without_rights_it_says_so_and_goes_on(
    kubernetes: Cluster, ask: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubernetes.forbidden = {"GET pods", "PATCH trainjobs"}
    assert ask("pod-a") == FIGURE
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "has an owner that cannot be found: Forbidden" in lines[0] and "cannot be changed: Forbidden" in lines[1]
    assert not left_behind(kubernetes, tmp_path)


def test_who_is_done_leaves_the_job_to_those_who_still_wait(
    kubernetes: Cluster, ask: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubernetes.launchers = {"pod-a": "a", "pod-b": "b"}
    name = trainjob.job_name("train", {"settings": {}, "inputs": [], "processes": 1}, {}, nodes())
    with Waiting(str(tmp_path / "shared" / name)):
        assert ask("pod-a") == FIGURE
        assert f"TrainJob {name} is left to 1 more" in capsys.readouterr().out
        assert kubernetes.jobs[name]["metadata"]["ownerReferences"] == [] and (folder_of(tmp_path) / FIGURES).exists()
    assert ask("pod-b") == FIGURE
    assert len(kubernetes.created) == 1 and not left_behind(kubernetes, tmp_path)


def test_of_two_who_are_done_at_once_one_removes_the_job(kubernetes: Cluster, tmp_path: Path) -> None:
    kubernetes.command = ["python3", "-c", ""]  # the answer is there, and no node leaves one after it is removed
    for number in range(5):
        both = [Job("natix-train-x") for _ in range(2)]
        (tmp_path / "shared").mkdir(exist_ok=True)
        (tmp_path / "shared" / FIGURES).touch()
        uri = str(tmp_path / "shared")
        assert both[0].create(["worker", uri], 1, nodes())
        start = threading.Barrier(2)

        def leave(job: Job, start: threading.Barrier, uri: str) -> None:
            with Waiting(uri) as waiting:
                start.wait()
                waiting.end()
                trainjob._left(job, uri, waiting, Waiting(uri, REMOVING))

        threads = [threading.Thread(target=leave, args=(job, start, uri)) for job in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not left_behind(kubernetes, tmp_path) and len(kubernetes.deleted) == number + 1


def test_who_comes_while_a_job_is_removed_refuses_the_removal_or_makes_a_new_one(
    kubernetes: Cluster, ask: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Job("natix-train-x"), Job("natix-train-x")
    assert first.create(["worker", str(tmp_path)], 1, nodes())
    seen = first.read() or {}
    assert second.adopt(seen) and not first.close(seen)  # it came before
    assert first.close(first.read() or {}) and not second.adopt(seen)  # it came after
    first.delete(first.read() or {})
    assert not kubernetes.jobs

    monkeypatch.setattr(jobs, "GONE_SECONDS", 0.3)
    kubernetes.rival = True
    kubernetes.launchers = {"pod-a": "a"}
    monkeypatch.setattr(Cluster, "create", closed_before(Cluster.create))
    assert ask() == FIGURE  # who closed it was killed
    assert len(kubernetes.created) == 3 and not left_behind(kubernetes, tmp_path)


def closed_before(create: Callable[[Cluster, dict[str, Any]], None]) -> Callable[[Cluster, dict[str, Any]], None]:
    """A rival's job is one that it is about to remove."""

    def closing(self: Cluster, job: dict[str, Any]) -> None:
        create(self, job)
        if len(self.created) == 2:
            self.patch(job["metadata"]["name"], {"annotations": {CLOSED: "true"}})

    return closing


def test_a_job_that_gave_up_because_nobody_waited_is_made_anew(
    kubernetes: Cluster, ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    answering = kubernetes.command
    give_up = f"import pathlib, sys; (pathlib.Path(sys.argv[1]) / '{ABANDONED}').touch()"
    kubernetes.command = ["python3", "-c", give_up]
    kubernetes.created = _Switch(kubernetes, answering)  # the second job's nodes answer
    assert ask() == FIGURE
    assert len(kubernetes.created) == 2 and not left_behind(kubernetes, tmp_path)


class _Switch(list[dict[str, Any]]):
    """A list that changes what nodes run once it has an entry."""

    def __init__(self, kubernetes: Cluster, command: list[str]) -> None:
        super().__init__()
        self._kubernetes, self._command = kubernetes, command

    def append(self, job: dict[str, Any]) -> None:
        if self:
            self._kubernetes.command = self._command
        super().append(job)


def test_a_job_that_was_deleted_by_hand_is_an_error(
    kubernetes: Cluster, ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    kubernetes.command = ["python3", "-c", "import time; time.sleep(600)"]

    def delete() -> None:
        while not any(json.dumps(job).find("natix/adopted") > 0 for job in list(kubernetes.jobs.values())):
            pass
        kubernetes.delete(name_of(kubernetes))

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(TrainingError, match=r"TrainJob natix-train-\w{16} was deleted while it ran"):
        ask()
    thread.join()


def test_the_outcome_is_a_condition_that_holds() -> None:
    failed = {"status": {"conditions": [{"type": "Complete", "status": "False"}, {"type": "Failed", "status": "True"}]}}
    assert outcome(failed) == "Failed" and outcome({}) == "" and outcome({"status": {}}) == ""
    assert storage.file_names("/nowhere/at/all") == []
