from pathlib import Path

import pytest
import torch

from natix_lib.distributed.processes import compute_in_processes, say_device
from natix_lib.errors import TrainingError


@pytest.mark.slow
def test_a_process_that_breaks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ended with exit code 1 and gave no reason"):
        compute_in_processes("natix_lib.no_such_worker", {}, {}, tmp_path, 2)


def test_the_device_is_said_and_a_gpu_that_is_not_there_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    say_device(0)
    assert capsys.readouterr().out == "device: cpu, 2 threads\n"
    say_device(1)
    assert capsys.readouterr().out == "device: cpu, 2 threads, no GPU found\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    say_device(4)
    assert capsys.readouterr().out == "device: cuda, 4 x NVIDIA L4\n"
