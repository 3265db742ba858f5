from pathlib import Path

import pytest
import torch

from natix_lib.distributed.exchange import FAULT, answer, leave_reason
from natix_lib.distributed.launch import processes_for
from natix_lib.distributed.processes import compute_in_processes, say_when_no_gpu
from natix_lib.errors import ContractError, NatixError, TrainingError
from natix_lib.files import write_json
from tests.kubernetes_api import nodes


def test_a_reason_comes_back_as_what_it_was(tmp_path: Path) -> None:
    leave_reason(tmp_path, ContractError("dataset folder x does not exist"))
    with pytest.raises(ContractError, match="dataset folder x does not exist"):
        answer(tmp_path, 2)


def test_a_reason_of_no_class_of_ours_is_still_a_reason(tmp_path: Path) -> None:
    for name in ("re", "SystemExit", "NatixError"):
        write_json(tmp_path / FAULT, {"error": name, "message": "x must be y"})
        with pytest.raises(NatixError, match="x must be y"):
            answer(tmp_path, 2)


def test_processes_that_end_without_a_word_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a training process ended with exit code 0 and gave no reason"):
        answer(tmp_path, 0)


@pytest.mark.slow
def test_a_process_that_breaks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ended with exit code 1 and gave no reason"):
        compute_in_processes("natix_lib.no_such_worker", {}, {}, tmp_path, 2)


def test_one_process_for_each_gpu_of_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes_for(4, nodes(num_nodes=3)) == 12
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_for(4, None) == 4 and processes_for(0, None) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes_for(4, None) == 1


def test_a_gpu_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    say_when_no_gpu(0)
    assert not capsys.readouterr().out
    say_when_no_gpu(1)
    assert capsys.readouterr().out == "no GPU found: computing on the CPU\n"
