"""How a GPU computes: the same bits each time, or as fast as it can; and where neither may round more than float32.

A run is `exact` or `fast`, by `training.determinism`. Exact asks torch for deterministic algorithms alone, cuDNN for
the same, and cuBLAS, which divides its work among streams, for workspaces of a fixed size: cuBLAS reads that from the
environment when it starts, once in a process, so `reserve_cublas` belongs at the beginning of whatever computes.
Deterministic algorithms are demanded, not wished for: with torch's `warn_only` attention keeps the backward pass that
adds up in any order. What has no deterministic algorithm then ends the run in one line that says so. Fast lets cuDNN
try which algorithm is the fastest, and float32 products be computed in TensorFloat-32.

A CPU computes the same bits either way, as it has no choice of algorithms that matters here.

Logits that policies are fitted on are float32 in both (`full_float32`): a TensorFloat-32 product has 10 bits, not 23,
and the exported model that they speak for is computed elsewhere.

`torch.compile` was left out: it needs a C++ compiler where training runs, and what it gains could not be measured.
"""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch

from natix_lib.config.training import Determinism
from natix_lib.errors import ConfigError, TrainingError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")  # those with which cuBLAS is deterministic, the larger and faster one first
FLOAT32 = "None"  # the name of a pass that rounds nothing further; kept features have it
NO_ALGORITHM = "does not have a deterministic implementation"  # in torch's error


def reserve_cublas(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give cuBLAS workspaces of a fixed size, unless the environment already says which; before it starts."""
    environment.setdefault(CUBLAS, WORKSPACES[0])


@contextmanager
def numerics(determinism: Determinism, device: torch.device) -> Iterator[None]:
    """Compute within the block as asked, and afterwards as before it.

    Args:
        determinism: `exact` or `fast`; on a CPU both are exact.
        device: What computes.

    Raises:
        ConfigError: If exact is asked of a GPU and the environment forbids it.
        TrainingError: If what the block computes has no deterministic algorithm, naming it and the cure.
    """
    gpu = device.type == "cuda"
    exact = determinism == "exact" or not gpu
    if gpu and exact:
        reserve_cublas()
        if os.environ[CUBLAS] not in WORKSPACES:
            raise ConfigError(
                f"{CUBLAS} must be {' or '.join(WORKSPACES)} where training.determinism is exact, "
                f"got {os.environ[CUBLAS]!r}"
            )
    cudnn: Any = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    of_cudnn = (cudnn.deterministic, cudnn.benchmark)
    torch.use_deterministic_algorithms(exact, warn_only=not gpu)
    cudnn.deterministic, cudnn.benchmark = exact, not exact
    try:
        with _products("highest" if exact else "high", not exact):
            yield
    except RuntimeError as error:
        if NO_ALGORITHM not in str(error):
            raise
        what = str(error).partition(NO_ALGORITHM)[0].strip()
        raise TrainingError(f"{what} {NO_ALGORITHM} on this GPU: set training.determinism to fast") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = of_cudnn


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products of the block in float32."""
    with _products("highest", False):
        yield


def autocast_of(device: torch.device, dtype: str | None) -> torch.dtype | None:
    """The number format that a device computes in where it may choose: `dtype` on a GPU, None, which is float32, else.

    Args:
        device: What computes.
        dtype: `bfloat16` or `float16`; None or `float32` asks for float32.
    """
    if device.type != "cuda" or dtype in (None, "float32"):
        return None
    value: torch.dtype = getattr(torch, str(dtype))
    return value


def precision_name(determinism: Determinism, device: torch.device, autocast: torch.dtype | None) -> str:
    """What the features of a pass are rounded to, by which kept ones are known."""
    return (FLOAT32 if autocast is None else str(autocast)) + (
        "+tf32" if device.type == "cuda" and determinism == "fast" else ""
    )


@contextmanager
def _products(precision: str, convolutions: bool) -> Iterator[None]:
    """Float32 matrix products of a precision, and convolutions with or without TensorFloat-32."""
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    of_convolutions = cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    cudnn.allow_tf32 = convolutions
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = of_convolutions
