"""Frozen-backbone features, computed once.

With a frozen backbone the features of a view never change, so K views of each image are pushed through it once and
every epoch of head training reads them: a run costs K passes instead of one an epoch. The cache is keyed by
everything that the features depend on (weights, transform, views, images, precision) and is kept between runs when
`training.feature_cache_dir` or `training.checkpoint_root` names a place.

Features are kept in shards, each keyed by its own images, so that a pass that was killed goes on at the next one. A
shard ends with a batch: the batches, and so the last bits of their features, are those of a pass without a cache. What
is kept is checked when it is read; features that were changed are computed again.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from natix_lib import storage
from natix_lib.backbones.features import Extractor
from natix_lib.config import Dataloader
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.training.views import Views, batches

Progress = Callable[[str, int, int], None]
SHARD = 1024  # images of a shard: seconds of a GPU, tens of megabytes


def silent(what: str, done: int, total: int) -> None:
    """Report no progress."""


def extract(
    extractor: Extractor,
    views: Views,
    dataloader: Dataloader,
    autocast: torch.dtype | None = None,
    progress: Progress = silent,
    what: str = "features",
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Features of all views of all images, or of some.

    Args:
        extractor: Backbone and pooling, in eval mode, on the device that computes.
        views: Images and how to look at them.
        dataloader: Batch size and workers.
        autocast: Precision of the backbone on a GPU; None computes in float32.
        progress: Called with `what`, images done, and images in all.
        what: Name of the work in the progress.
        rows: Which images; None takes all.

    Returns:
        float32 (n, views, F), on the CPU.
    """
    total = len(views) if rows is None else len(rows)
    none = torch.empty(0, views.count, extractor.width)  # a share of images may be none
    parts = batch_features(extractor, views, dataloader, autocast, rows)
    return torch.cat([none, *_counted(parts, lambda done: progress(what, done, total))])


@torch.no_grad()
def batch_features(
    extractor: Extractor,
    views: Views,
    dataloader: Dataloader,
    autocast: torch.dtype | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """What `extract` gives, batch by batch."""
    device = next(extractor.parameters()).device
    for batch in batches(views, dataloader, rows, device):
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            of_views = extractor.features(batch.flatten(0, 1))
        yield of_views.reshape(*batch.shape[:2], -1).cpu()


class FeatureCache:
    """Features by key, in a folder, below a bucket's prefix, or nowhere."""

    def __init__(self, root: str, batch_size: int = 1) -> None:
        """Keep features below `root`, an empty text keeps none, in shards of whole batches of `batch_size` images."""
        self.root = root.rstrip("/")
        self.shard = -(-SHARD // batch_size) * batch_size
        self._names: set[str] | None = None  # of the files that are there, once it was looked

    def get_or_extract(
        self,
        images: int,
        key: Callable[[slice], Mapping[str, object]],
        extract_features: Callable[[Sequence[int]], Iterator[Tensor]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Iterator[Tensor]:
        """The features of some images, those that are kept and those that are computed now and then kept.

        One shard is in memory at a time.

        Args:
            images: How many images.
            key: What the features of a slice of the images are kept by (JSON).
            extract_features: Numbers of images to their features (b, views, F), batch by batch, in their order.
            progress: Called with the images done.

        Yields:
            Features (b, views, F), whose rows are the images' when they are put together.
        """
        if not self.root:
            yield from _counted(extract_features(range(images)), progress)
            return
        shards = [slice(start, min(start + self.shard, images)) for start in range(0, images, self.shard)]
        places = [self._place(key(shard)) for shard in shards]
        absent = [shard for shard, place in zip(shards, places, strict=True) if not self._is_there(place)]
        known = images - sum(shard.stop - shard.start for shard in absent)
        numbers = [number for shard in absent for number in range(shard.start, shard.stop)]
        parts = extract_features(numbers) if numbers else iter(())
        computed = _counted(parts, lambda done: progress(known + done))
        if known and not absent:
            progress(known)
        for shard, place in zip(shards, places, strict=True):
            if not self._is_there(place):
                yield self._keep(place, _rows(computed, shard.stop - shard.start))
            elif (kept := self._kept(place)) is not None:
                yield kept
            else:
                yield self._keep(place, torch.cat(list(extract_features(range(shard.start, shard.stop)))))

    def _place(self, key: Mapping[str, object]) -> str:
        return f"{self.root}/{sha256_bytes(canonical_json(key))}.safetensors"

    def _keep(self, place: str, features: Tensor) -> Tensor:
        values = np.ascontiguousarray(features.numpy())
        storage.write_file(place, save({"features": values}, {"sha256": sha256_bytes(values.tobytes())}))
        return features

    def _is_there(self, place: str) -> bool:
        if self._names is None:
            self._names = set(storage.file_names(self.root))
        return place.removeprefix(f"{self.root}/") in self._names

    def _kept(self, place: str) -> Tensor | None:
        """The features of a file if it is as it was written, else None."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with safe_open(storage.fetch_file(place, scratch), framework="numpy") as file:
                    features: NDArray[np.float32] = file.get_tensor("features")
                    intact = (file.metadata() or {}).get("sha256") == sha256_bytes(features.tobytes())
            except (OSError, SafetensorError):
                intact = False
        if not intact:
            print(f"cached {place} was changed: repeated", flush=True)
        return torch.from_numpy(features) if intact else None


def _counted(parts: Iterator[Tensor], progress: Callable[[int], None]) -> Iterator[Tensor]:
    done = 0
    for part in parts:
        done += len(part)
        progress(done)
        yield part


def _rows(parts: Iterator[Tensor], rows: int) -> Tensor:
    """The next parts, which have so many rows together."""
    taken = [next(parts)]
    while sum(map(len, taken)) < rows:
        taken.append(next(parts))
    return torch.cat(taken)


def cache_key(
    backbone_sha256: str,
    pooling: Sequence[str],
    dataset_fingerprint: str,
    views: Views,
    ids: Sequence[str],
    precision: str,
) -> dict[str, object]:
    """Everything that the features of the views of the images `ids` depend on; of `patches` no pooling."""
    return {
        "backbone": backbone_sha256,
        "pooling": list(pooling),
        "dataset": dataset_fingerprint,
        "transform": views.transform.document(),
        "views": list(views.numbers),
        "seed": views.seed if views.numbers else 0,
        "ids": sha256_bytes("\n".join(ids).encode()),
        "precision": precision,
        **({"augmentation": views.profile.document()} if views.numbers else {}),
    }
