"""What a machine has, told by programs that the test puts in its place."""

from pathlib import Path

import pytest

from natix_lib.survey import machine
from natix_lib.survey.machine import BASE, GIB, SMALL, Gpu, Machine


def having(*gibibytes: int) -> Machine:
    return Machine(8, [Gpu("Some GPU", size * GIB) for size in gibibytes], "torch", False)


@pytest.mark.parametrize(
    ("sizes", "backbone"), [((), SMALL), ((2,), SMALL), ((4,), BASE), ((24, 24), BASE), ((24, 2), SMALL)]
)
def test_the_backbone_goes_by_the_smallest_gpu(sizes: tuple[int, ...], backbone: machine.Backbone) -> None:
    assert having(*sizes).backbone == backbone


def test_without_torch_the_drivers_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034'\necho 'NVIDIA L4, 23034'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = machine.this_machine({"HF_TOKEN": "x"})
    assert found.gpus == [Gpu("NVIDIA L4", 23034 << 20)] * 2
    assert (found.source, found.has_token, str(found.gpus[0])) == ("nvidia-smi", True, "NVIDIA L4 with 22 GiB")


@pytest.mark.parametrize("text", ["exit 9", "echo 'No devices were found'", "echo 'GPU, [N/A]'"])
def test_a_driver_that_answers_nothing_sees_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert machine.this_machine({}).gpus == []
