import os
from typing import Literal

import pytest
import torch

from natix_lib.errors import ConfigError, TrainingError
from natix_lib.training.precision import CUBLAS, autocast_of, full_float32, numerics, precision_name, reserve_cublas

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # naming a GPU starts none
cudnn = torch.backends.cudnn
Flags = tuple[object, ...]


def flags() -> Flags:
    """Deterministic algorithms, wished for only; cuDNN deterministic, trying, TensorFloat-32; float32 products."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
    )


@pytest.mark.parametrize(
    ("determinism", "device", "expected"),
    [
        ("exact", GPU, (True, False, True, False, False, "highest")),
        ("fast", GPU, (False, False, False, True, True, "high")),
        ("exact", CPU, (True, True, True, False, False, "highest")),
        ("fast", CPU, (True, True, True, False, False, "highest")),
    ],
)
def test_a_run_computes_as_asked_and_what_follows_it_as_before(
    determinism: Literal["exact", "fast"], device: torch.device, expected: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    before = flags()
    with numerics(determinism, device):
        assert flags() == expected
        with full_float32():
            assert flags() == (*expected[:4], False, "highest")
        assert flags() == expected
    assert flags() == before
    with pytest.raises(ZeroDivisionError), numerics(determinism, device):
        _ = 1 // 0
    assert flags() == before


def test_cublas_is_told_before_it_starts_and_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    reserve_cublas(environment)
    assert environment == {CUBLAS: ":4096:8"}
    reserve_cublas(environment := {CUBLAS: ":16:8"})
    assert environment == {CUBLAS: ":16:8"}
    monkeypatch.setenv(CUBLAS, "")  # so that it is put back whatever it was
    monkeypatch.delenv(CUBLAS)
    with numerics("exact", GPU):
        assert os.environ[CUBLAS] == ":4096:8"


def test_an_environment_that_forbids_exactness_is_refused_where_a_gpu_shall_be_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CUBLAS, ":0:0")
    message = "CUBLAS_WORKSPACE_CONFIG must be :4096:8 or :16:8 where training.determinism is exact, got ':0:0'"
    with pytest.raises(ConfigError, match=message), numerics("exact", GPU):
        pass
    with numerics("fast", GPU), numerics("exact", CPU):
        pass


def test_what_has_no_deterministic_algorithm_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":4096:8")

    def put() -> torch.Tensor:  # has none on a CPU either
        return torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]), accumulate=False)

    message = r"put_ .*does not have .* set training.determinism to fast"
    with pytest.raises(TrainingError, match=message), numerics("exact", GPU):
        put()
    with numerics("fast", GPU):
        assert float(put()[0]) in (1.0, 2.0)


def test_another_error_passes_through() -> None:
    with pytest.raises(RuntimeError, match="another"), numerics("exact", CPU):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        (GPU, "bfloat16", torch.bfloat16),
        (GPU, "float16", torch.float16),
        (GPU, "float32", None),
        (GPU, None, None),
        (CPU, "bfloat16", None),
    ],
)
def test_a_gpu_computes_in_the_format_that_is_named_and_a_cpu_in_float32(
    device: torch.device, dtype: str | None, expected: torch.dtype | None
) -> None:
    assert autocast_of(device, dtype) is expected


def test_features_are_kept_by_what_they_are_rounded_to() -> None:
    names = [
        precision_name(how, device, autocast)
        for how in ("exact", "fast")
        for device, autocast in ((CPU, None), (GPU, None), (GPU, torch.bfloat16))
    ]
    assert names == ["None", "None", "torch.bfloat16", "None", "None+tf32", "torch.bfloat16+tf32"]
