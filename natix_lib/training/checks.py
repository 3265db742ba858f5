"""What stops training or should be known before an epoch is spent, each said in one line that names the cure.

torch says much of this in its own words, as a trace of many lines, or not at all: `explained` turns errors of a kind,
memory that ran out and loader processes that ended, into a TrainingError, wherever in its block they come up. It
knows them by their type where torch has one, and else by the words that torch's C++ code or loader has for all of the
kind. What else goes wrong is a bug of natix and keeps its trace. To lower the batch and try again unasked was rejected:
results would depend on which GPU a run was given.

That a backbone's weights are finite is checked when it is loaded, `natix_lib.backbones.loading`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from natix_lib.arrays import Ints
from natix_lib.errors import DataError, TrainingError

MOST_NAMED = 5  # images or classes in a message
NO_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)
NO_SHARED_MEMORY = re.compile(r"shared memory|</torch_|Bus error")
DEAD_WORKER = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")
ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")


def require_each_class(labels: Ints, class_names: Sequence[str]) -> list[str]:
    """Refuse labels (n,) of TRAIN without a class; gives the names of classes with a single image.

    `split` makes no such TRAIN; this is for one that came otherwise.

    Raises:
        DataError: Naming the classes without an image.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    absent = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if absent:
        raise DataError(
            f"TRAIN holds no image of class {_some(absent)}: nothing can be learnt of it; add images of it or take it "
            "out of data.class_names"
        )
    return [name for name, count in zip(class_names, counts, strict=True) if count == 1]


def single_image_warning(classes: Sequence[str]) -> str:
    """The warning for classes of which TRAIN has one image; "" for none."""
    if not classes:
        return ""
    return f"TRAIN holds one image only of class {_some(classes)}: what is learnt of it is that one picture"


def finite_features(features: Tensor, ids: Sequence[str], what: str, autocast: torch.dtype | None) -> Tensor:
    """The features (n, ...) of images `ids` (n), refused where one is NaN or infinite.

    Args:
        features: Features of n images.
        ids: Their ids.
        what: What they are called, such as "features of TRAIN".
        autocast: Precision that the backbone computed in; None for float32.

    Raises:
        TrainingError: Naming the images and the likely reason.
    """
    bad = (~torch.isfinite(features.flatten(1)).all(dim=1)).nonzero().flatten().tolist() if len(features) else []
    if not bad:
        return features
    cure = (
        "float16 ends at 65504: set training.mixed_precision.dtype to bfloat16"
        if autocast is torch.float16
        else "the backbone's weights are finite but too large for its own activations: take another backbone"
    )
    names = _some([ids[row] for row in bad])
    raise TrainingError(f"{what} are NaN or infinite for {len(bad)} of {len(ids)} images ({names}); {cure}")


def require_finite_weights(parameters: Sequence[Tensor], when_and_cure: str) -> None:
    """Refuse parameters of which one is NaN or infinite.

    Raises:
        TrainingError: Saying when it was found and what to do.
    """
    if not all(torch.stack([torch.isfinite(parameter).all() for parameter in parameters]).tolist()):
        raise TrainingError(f"weights are NaN or infinite {when_and_cure}")


def lower_lr(lr: float) -> str:
    """What to do where weights or losses overflow."""
    return f"lower training.optimizer.lr, it is {lr:g}: try {lr / 10:g}"


@contextmanager
def lr_overflow_named(when_and_cure: str) -> Iterator[None]:
    """Run an optimiser's step, and name a learning rate that is no number of the parameters' format.

    Raises:
        TrainingError: Saying when and what to do.
    """
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise TrainingError(f"the learning rate overflows {when_and_cure}") from error


@contextmanager
def explained(key: str, value: int, workers: int) -> Iterator[None]:
    """Run a block, and say in one line why it ran out of memory or lost a loader's process.

    Args:
        key: The config key that decides how much memory a step takes, such as `data.dataloader.batch_size`.
        value: Its value.
        workers: The value of `data.dataloader.num_workers`.

    Raises:
        TrainingError: Saying what to lower and to which value.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        line = _line(error, key, value, workers)
        if not line:
            raise
        raise TrainingError(line) from error


def _line(error: Exception, key: str, value: int, workers: int) -> str:
    """Why an error came, and the cure; "" where it is of no kind that is known."""
    text = f"{error.__cause__ or ''} {error}"  # the loader says that a process ended, its cause by which signal
    dead = DEAD_WORKER.search(text)
    fewer = "0, which loads in the training process" if workers < 2 else f"{workers // 2}"
    fewer = f"lower data.dataloader.num_workers from {workers} to {fewer}" if workers else ""
    if NO_SHARED_MEMORY.search(text):
        cures = [fewer, _lower(key, value), "enlarge /dev/shm (a container has 64 MB unless told)"]
        return f"shared memory ran out, which loader processes hand images over in: {', or '.join(filter(None, cures))}"
    if isinstance(error, torch.OutOfMemoryError):
        asked = ASKED.search(text)
        tried = f" where {asked[1]} more were needed" if asked else ""
        return f"the GPU ran out of memory{tried}: {_lower(key, value) or 'take a GPU with more'}"
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        of = "the GPU" if "CUDA" in text or "CUBLAS" in text else "the machine"
        cures = [_lower(key, value), fewer if of == "the machine" else ""]
        return f"{of} ran out of memory: {', or '.join(filter(None, cures)) or 'take one with more'}"
    if dead:
        if dead[1] == "Killed":
            return f"a loader process was killed, mostly as memory ran out: {fewer}, or give more memory"
        how = f"by signal {dead[1].strip()}" if dead[1] else "without a reason"
        return f"a loader process ended {how}: {fewer} to see whether it is one image that does it"
    return ""


def _lower(key: str, value: int) -> str:
    return f"lower {key} from {value} to {value // 2}" if value > 1 else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
