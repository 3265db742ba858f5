"""Where a run of train keeps what it goes on from: checkpoints of its loop, and features of its frozen backbone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from natix_lib.config import Training
from natix_lib.distributed.world import World
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.storage.checkpoints import Checkpoints
from natix_lib.training.features import FeatureCache
from natix_lib.training.keeper import Keeper
from natix_lib.training.profiles import PROFILES

FORMAT = 2  # another one where the same settings come to train otherwise, or a state holds something else
# Keys that change no weight.
ELSEWHERE = {"checkpoint_root", "checkpoint_minutes", "feature_cache_dir", "tensorboard_root"}


def feature_cache(training: Training, batch_size: int) -> FeatureCache:
    """The cache in `training.feature_cache_dir`, or else below `training.checkpoint_root`."""
    root = training.checkpoint_root.rstrip("/")
    return FeatureCache(training.feature_cache_dir or (f"{root}/features" if root else ""), batch_size)


def keeper_of(training: Training, identity: Mapping[str, object], world: World) -> Keeper:
    """A keeper below `training.checkpoint_root`, or one that keeps nothing.

    Args:
        training: Settings of the run.
        identity: What the state of the run's loop depends on beside them (JSON).
        world: The processes of the run: how many they are, and on what they compute, is part of the identity.
    """
    if not training.checkpoint_root:
        return Keeper()
    whole = {
        "format": FORMAT,
        **identity,
        "training": training.model_dump(mode="json", exclude=ELSEWHERE),
        "augmentation": PROFILES[training.augmentation].document(),
        "device": world.device.type,
        "processes": world.size,
    }
    return Keeper(Checkpoints(training.checkpoint_root, whole), 60 * training.checkpoint_minutes, world)


def labelled_sha256(ids: Sequence[str], labels: NDArray[np.int64], groups: Sequence[str]) -> str:
    """The hash of which images a role has, in which order and with which labels and groups."""
    return sha256_bytes(canonical_json([list(ids), labels.tolist(), list(groups)]))


@contextmanager
def drawing_once() -> Iterator[None]:
    """Let a block take one number from torch's generator, as one loader does.

    Features that are kept make no loader, and dropout is to be the same with them and without.
    """
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)
    torch.empty((), dtype=torch.int64).random_()
