"""Frozen-backbone features, computed once.

With a frozen backbone the features of a view never change, so K views of each image are pushed through it once and
every epoch of head training reads them: a run costs K passes instead of one an epoch. The cache is keyed by
everything that the features depend on (weights, transform, views, images, precision) and is kept between runs when
`training.feature_cache_dir` names a folder. What is kept there is checked when it is read; features that were changed
are computed again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from natix_lib.backbones.features import feature_width, image_features
from natix_lib.config import Dataloader
from natix_lib.files import canonical_json, sha256_bytes, write_bytes
from natix_lib.training.views import Views, batches

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Report no progress."""


@torch.no_grad()
def extract(
    backbone: nn.Module,
    views: Views,
    dataloader: Dataloader,
    autocast: torch.dtype | None = None,
    progress: Progress = silent,
    what: str = "features",
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Features of all views of all images, or of some.

    Args:
        backbone: Backbone in eval mode, on the device that computes.
        views: Images and how to look at them.
        dataloader: Batch size and workers.
        autocast: Precision of the backbone on a GPU; None computes in float32.
        progress: Called with `what`, images done, and images in all.
        what: Name of the work in the progress.
        rows: Which images; None takes all.

    Returns:
        float32 (n, views, F), on the CPU.
    """
    device = next(backbone.parameters()).device
    total = len(views) if rows is None else len(rows)
    parts = [torch.empty(0, views.count, feature_width(backbone))]  # a share of images may be none
    done = 0
    for batch in batches(views, dataloader, rows):
        pixels = batch.to(device, non_blocking=True)
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            of_views = image_features(backbone, pixels.flatten(0, 1))
        parts.append(of_views.reshape(*batch.shape[:2], -1).cpu())
        done += len(batch)
        progress(what, done, total)
    return torch.cat(parts)


class FeatureCache:
    """Features by key, in a folder or nowhere."""

    def __init__(self, folder: str) -> None:
        """Keep features below `folder`; an empty text keeps none."""
        self.folder = Path(folder) if folder else None

    def get_or_extract(self, key: Mapping[str, object], extract_features: Callable[[], Tensor]) -> Tensor:
        """The features stored under `key` (JSON), or those that `extract_features()` gives, then stored."""
        if self.folder is None:
            return extract_features()
        path = self.folder / f"{sha256_bytes(canonical_json(key))}.safetensors"
        if (kept := _unchanged(path)) is not None:
            return torch.from_numpy(kept)
        features = extract_features()
        values = np.ascontiguousarray(features.numpy())
        write_bytes(path, save({"features": values}, {"sha256": sha256_bytes(values.tobytes())}))
        return features


def _unchanged(path: Path) -> NDArray[np.float32] | None:
    """The features of a file that is as it was written, else None."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            features: NDArray[np.float32] = file.get_tensor("features")
            intact = (file.metadata() or {}).get("sha256") == sha256_bytes(features.tobytes())
    except (OSError, SafetensorError):
        intact = False
    if not intact:
        print(f"cached {path} was changed: repeated", flush=True)
    return features if intact else None


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
