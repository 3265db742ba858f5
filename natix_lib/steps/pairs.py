"""What train and score share: the logits of a set, and its labels and groups, as two files that belong together."""

import numpy as np
from numpy.typing import NDArray

from natix_lib.data.sets import RoleSet
from natix_lib.decisions.slices import Tags
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.logits import write_labels, write_logits


def write_pair(
    paths: tuple[str, str], values: NDArray[np.float32], images: RoleSet, tags: Tags, model_sha256: str
) -> None:
    """Write the logits, (n, C), that a model has given for the n images of a set, and what is known of the images."""
    logits_path, labels_path = paths
    header = {
        "role": images.role,
        "class_names": canonical_json(images.class_names).decode(),
        "positive_classes": canonical_json(images.positive_classes).decode(),
        "model_sha256": model_sha256,
        "splits_sha256": images.splits_sha256,
        "dataset_fingerprint": images.dataset_fingerprint,
        "ids_sha256": sha256_bytes("\n".join(images.ids).encode()),
    }
    write_logits(logits_path, values, header)
    _, groups = np.unique(images.groups, return_inverse=True)
    write_labels(labels_path, images.labels, groups.astype(np.int64), header, tags)
