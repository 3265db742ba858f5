from pathlib import Path

import pytest

from natix_lib.distributed.exchange import FAULT, answer, leave_reason
from natix_lib.errors import ContractError, NatixError, TrainingError
from natix_lib.files import write_json


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
