from pathlib import Path

import pytest
import torch

from natix_lib.distributed.processes import compute_in_processes, say_when_no_gpu
from natix_lib.errors import TrainingError


@pytest.mark.slow
def test_a_process_that_breaks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ended with exit code 1 and gave no reason"):
        compute_in_processes("natix_lib.no_such_worker", {}, {}, tmp_path, 2)


def test_a_gpu_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    say_when_no_gpu(0)
    assert not capsys.readouterr().out
    say_when_no_gpu(1)
    assert capsys.readouterr().out == "no GPU found: computing on the CPU\n"
