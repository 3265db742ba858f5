import math
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from natix_lib.config import Dataloader
from natix_lib.errors import DataError, TrainingError
from natix_lib.training.checks import explained, finite_features, require_each_class, single_image_warning
from natix_lib.training.views import Views, batches
from natix_lib.transform import Transform

KEY = "data.dataloader.batch_size"
TRANSFORM = Transform(32, 64, False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3 GiB is free."
)


def test_a_class_without_an_image_in_train_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"^TRAIN holds no image of class kerb, sign: nothing can be learnt"):
        require_each_class(np.array([0, 0, 3, 3]), ["none", "kerb", "sign", "works"])


def test_classes_with_one_image_are_warned_of() -> None:
    assert single_image_warning(require_each_class(np.array([0, 0, 1, 2]), ["none", "kerb", "sign"])) == (
        "TRAIN holds one image only of class kerb, sign: what is learnt of it is that one picture"
    )
    assert single_image_warning(require_each_class(np.array([0, 0, 1, 1]), ["none", "kerb"])) == ""


@pytest.mark.parametrize(("precision", "cure"), [(torch.float16, "dtype to bfloat16"), (None, "take another backbone")])
def test_images_whose_features_are_not_finite_are_counted_and_named(precision: torch.dtype | None, cure: str) -> None:
    features = torch.zeros(9, 2, 3)
    for row in range(2, 9):
        features[row, row % 2, row % 3] = math.nan if row % 2 else -math.inf
    ids = [f"drive/{row}.jpg" for row in range(9)]
    match = rf"^features of TRAIN are NaN or infinite for 7 of 9 images \(drive/2.jpg, .*/6.jpg and 2 more\); .*{cure}"
    with pytest.raises(TrainingError, match=match):
        finite_features(features, ids, "features of TRAIN", precision)
    assert finite_features(features[:2], ids[:2], "features of TRAIN", precision).shape == (2, 2, 3)
    assert len(finite_features(features[:0], [], "a share of none", precision)) == 0


@pytest.mark.parametrize(
    ("error", "value", "workers", "line"),
    [
        (torch.OutOfMemoryError(CUDA), 32, 2,
         f"the GPU ran out of memory where 20.00 GiB more were needed: lower {KEY} from 32 to 16"),
        (torch.OutOfMemoryError(CUDA), 1, 2,
         "the GPU ran out of memory where 20.00 GiB more were needed: take a GPU with more"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 9, 2,
         f"the GPU ran out of memory: lower {KEY} from 9 to 4"),
        (MemoryError(), 8, 4,
         f"the machine ran out of memory: lower {KEY} from 8 to 4, or lower data.dataloader.num_workers from 4 to 2"),
        (MemoryError(), 1, 0, "the machine ran out of memory: take one with more"),
        (RuntimeError("unable to write to file </torch_12_0>: No space left on device (28)"), 8, 2,
         "shared memory ran out, which loader processes hand images over in: lower data.dataloader.num_workers from 2 "
         f"to 1, or lower {KEY} from 8 to 4, or enlarge /dev/shm (a container has 64 MB unless told)"),
        (RuntimeError("DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's "
                      "workers are out of shared memory. Please try to raise your shared memory limit."), 1, 1,
         "shared memory ran out, which loader processes hand images over in: lower data.dataloader.num_workers from 1 "
         "to 0, which loads in the training process, or enlarge /dev/shm (a container has 64 MB unless told)"),
        (RuntimeError("DataLoader worker (pid(s) 77, 78) exited unexpectedly"), 8, 4,
         "a loader process ended without a reason: lower data.dataloader.num_workers from 4 to 2 to see whether it is "
         "one image that does it"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_says_what_to_lower_and_to_what(
    error: Exception, value: int, workers: int, line: str
) -> None:
    with pytest.raises(TrainingError) as caught, explained(KEY, value, workers):
        raise error
    assert str(caught.value) == line


def test_memory_that_torch_cannot_have_is_known_by_what_torch_says() -> None:
    with (
        pytest.raises(TrainingError, match="the machine ran out of memory: lower .* from 4 to 2"),
        explained(KEY, 4, 0),
    ):
        torch.empty(2**55, dtype=torch.uint8)


def test_an_error_of_another_kind_is_left_as_it_is() -> None:
    for error in (RuntimeError("shapes cannot be multiplied"), OSError("no such file"), TrainingError("loss is nan")):
        with pytest.raises(type(error)) as caught, explained(KEY, 4, 2):
            raise error
        assert caught.value is error


class Fatal:
    """Four pictures; the process that opens the last one is killed by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        self.ids = ["a", "b", "c", "d"]
        self.number = number

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        if index == 3:
            os.kill(os.getpid(), self.number)
        return Image.new("RGB", (32, 32))


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGKILL, "a loader process was killed, mostly as memory ran out: .* from 1 to 0, which loads in the "),
        (
            signal.SIGSEGV,
            "a loader process ended by signal Segmentation fault: lower data.dataloader.num_workers from 1 to 0",
        ),
        (signal.SIGBUS, "shared memory ran out, which loader processes hand images over in: lower .*num_workers"),
    ],
)
def test_a_loader_process_that_died_says_why(number: signal.Signals, line: str) -> None:
    with pytest.raises(TrainingError, match=line), explained(KEY, 2, 1):
        list(batches(Views(Fatal(number), TRANSFORM, 0), Dataloader(batch_size=2, num_workers=1)))
