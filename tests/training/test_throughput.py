"""The benchmark of training runs on a machine without a GPU, at a small size, and counts what a network computes."""

import pytest
import torch

from benchmarks.train_networks import SIZES, flop
from benchmarks.train_throughput import Clock, main


def of_formula(name: str) -> float:
    """FLOP of a forward pass: 2 a multiplication with addition, of projections, attention, MLP and patches."""
    size = SIZES[name]
    shape = {"patch_size": 16, "use_gated_mlp": False, **size.shape}
    width, hidden = shape["hidden_size"], shape["intermediate_size"]
    patches = (size.side // shape["patch_size"]) ** 2
    tokens = 1 + 4 + patches
    mlp = (3 if shape["use_gated_mlp"] else 2) * width * hidden
    layer = tokens * (4 * width**2 + mlp) + 2 * tokens**2 * width
    return 2.0 * (shape["num_hidden_layers"] * layer + patches * 3 * shape["patch_size"] ** 2 * width)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_the_flop_are_those_of_the_shapes_and_a_full_step_has_three_times_as_many(name: str) -> None:
    forward = flop(SIZES[name], "frozen")
    assert forward == pytest.approx(of_formula(name), rel=0.01)
    assert flop(SIZES[name], "all") == pytest.approx(3 * forward, rel=0.05)
    assert 2 * forward < flop(SIZES[name], "lora") < 2.2 * forward  # weights that are frozen have no gradient


def test_a_clock_leaves_out_the_first_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock(torch.device("cpu"))
    for number in clock.over(range(8)):
        now[0] += 100.0 if number < 3 else 2.0
    assert (clock.rounds, clock.seconds) == (5, 10.0)


@pytest.mark.slow
def test_every_part_runs_at_a_small_size_and_says_that_a_cpu_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--images", "60", "--epochs", "2", "--views", "2", "--side", "32"]
    main(["--size", "tiny", "--steps", "1", "--workers", "0", *small])
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    cached = next(row for row in rows if row[0] == "cached features")
    assert (cached[1], cached[4]) == ("13", "1.00") and float(cached[5]) <= 1.1
    assert [row[1] for row in rows if row[0] == "tiny"] == ["frozen", "lora", "all", "adapt"]
    assert all(float(row[4]) > 0 for row in rows if row[0] == "tiny") and "a CPU, which says nothing about a GPU" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_large_networks_are_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--part", "steps"])
    assert capsys.readouterr().out == "steps: not measured, there is no GPU; --size tiny shows that they run\n"
