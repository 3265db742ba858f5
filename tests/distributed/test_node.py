"""A node of a TrainJob, without its processes."""

import sys
import threading
from pathlib import Path

import pytest

from natix_lib import repeats, storage
from natix_lib.distributed import node
from natix_lib.distributed.exchange import FIGURES, REQUEST, TENSORS
from natix_lib.distributed.life import ABANDONED
from natix_lib.files import canonical_json
from tests.cloud_storage import BUCKET, Cloud


def test_an_answer_is_delivered_when_the_bucket_is_back_however_long_one_request_is_repeated(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"gs://{BUCKET}/shared/job"
    storage.write_file(f"{uri}/{REQUEST}", canonical_json({"inputs": [], "processes": 1, "settings": {}}))
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.05)

    def torchrun(worker: str, folder: Path, *options: str) -> int:
        for name in (TENSORS, FIGURES):
            (folder / name).write_bytes(name.encode())
        cloud.failures = 10**9
        threading.Timer(0.5, lambda: setattr(cloud, "failures", 0)).start()
        return 0

    monkeypatch.setattr(node, "torchrun", torchrun)
    assert node.serve("worker", uri, tmp_path) == 0
    assert cloud.holds(f"shared/job/{TENSORS}") and cloud.holds(f"shared/job/{FIGURES}")
    assert "; trying again" in capsys.readouterr().err


@pytest.mark.parametrize(("left_behind", "code"), [(True, 0), (False, 1)])
def test_a_node_whose_processes_fall_with_those_of_one_that_saw_nobody_wait_ends_as_that_one(
    left_behind: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = str(tmp_path / "job")

    def serve(worker: str, uri: str, folder: Path) -> int:  # after this node's own look, a minute before its next
        if left_behind:
            storage.write_file(f"{uri}/{ABANDONED}", b"")
        return 1

    codes: list[int] = []
    looking: list[str] = []

    def look(uri: str) -> threading.Event:
        looking.append(uri)
        return threading.Event()

    monkeypatch.setattr(sys, "argv", ["node", "worker", job])
    monkeypatch.setattr(node, "end_when_abandoned", look)
    monkeypatch.setattr(node, "serve", serve)
    monkeypatch.setattr(node, "leave", codes.append)
    node.main()
    assert codes == [code] and looking == [job]
