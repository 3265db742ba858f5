"""Frozen-backbone features, computed once.

With a frozen backbone the features of a view never change, so K views of each image are pushed through it once and
every epoch of head training reads them: a run costs K passes instead of one an epoch. The cache is keyed by
everything that the features depend on (weights, transform, views, images, precision) and is kept between runs when
`training.feature_cache_dir` names a folder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from natix_lib.config import Dataloader
from natix_lib.files import canonical_json, sha256_bytes, write_bytes
from natix_lib.training.classifier import Classifier
from natix_lib.training.views import Views, batches

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Report no progress."""


@torch.no_grad()
def extract(
    classifier: Classifier,
    views: Views,
    dataloader: Dataloader,
    autocast: torch.dtype | None = None,
    progress: Progress = silent,
    what: str = "features",
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Features of all views of all images, or of some.

    Args:
        classifier: In eval mode, on the device to use.
        views: Images and how to look at them.
        dataloader: Batch size and workers.
        autocast: Precision of the backbone on a GPU; None computes in float32.
        progress: Called with `what`, images done, and images in all.
        what: Name of the work in the progress.
        rows: Which images; None takes all.

    Returns:
        float32 (n, views, F), on the CPU.
    """
    device = next(classifier.parameters()).device
    total = len(views) if rows is None else len(rows)
    parts = [torch.empty(0, views.count, classifier.head.linear.in_features)]  # a share of images may be none
    done = 0
    for batch in batches(views, dataloader, rows):
        pixels = batch.to(device, non_blocking=True)
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            features = classifier.features(pixels.flatten(0, 1))
        parts.append(features.reshape(*batch.shape[:2], -1).cpu())
        done += len(batch)
        progress(what, done, total)
    return torch.cat(parts)


class FeatureCache:
    """Features by key, in a folder or nowhere."""

    def __init__(self, folder: str) -> None:
        """Keep features below `folder`; an empty text keeps none."""
        self.folder = Path(folder) if folder else None

    def get_or_compute(self, key: dict[str, object], compute: Callable[[], Tensor]) -> Tensor:
        """The features stored under `key` (JSON), or `compute()`, then stored."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{sha256_bytes(canonical_json(key))}.safetensors"
        if path.is_file():
            return torch.from_numpy(load_file(path)["features"])
        features = compute()
        write_bytes(path, save({"features": np.ascontiguousarray(features.numpy())}))
        return features


def cache_key(
    backbone_sha256: str, dataset_fingerprint: str, views: Views, ids: Sequence[str], precision: str
) -> dict[str, object]:
    """Everything that the features of the views of the images `ids` depend on."""
    return {
        "backbone": backbone_sha256,
        "dataset": dataset_fingerprint,
        "transform": views.transform.document(),
        "views": list(views.numbers),
        "seed": views.seed if views.numbers else 0,
        "ids": sha256_bytes("\n".join(ids).encode()),
        "precision": precision,
    }
