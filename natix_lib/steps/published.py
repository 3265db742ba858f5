"""What export and renew share: what drift is told by, and where a finished bundle goes."""

from pathlib import Path
from typing import Any

import numpy as np

from natix_lib import storage
from natix_lib.arrays import Ints
from natix_lib.bundle.appearance import appearance, quantiles
from natix_lib.contracts import ARTIFACTS
from natix_lib.data.sets import RoleSet
from natix_lib.decisions import Policy
from natix_lib.decisions.deployment import independent_at_prior
from natix_lib.decisions.drift import reference_of
from natix_lib.files import JsonDict
from natix_lib.logits import LogitsFile
from natix_lib.progress import Lines
from natix_lib.transform import Transform, at_most_shorter_side

LOOKED_AT = 1_000  # images of VAL_CALIB whose looks are measured: a quantile of .05 is then one of .05 +- .014


def drift_reference(
    images: RoleSet, logits: LogitsFile, policy: JsonDict, model_sha256: str, transform: Transform
) -> dict[str, Any]:
    """What images that are scored are compared with, see docs/artifacts.md.

    Answers are those of the policy: with a deployment prior its bias is in the logits, and the images are drawn at that
    prior, as those to come are. Looks are of all groups alike, evenly spread over the ids.

    Args:
        images: VAL_CALIB.
        logits: Of these images, in their order.
        policy: Document of the policy.
        model_sha256: Of the model that gave the logits.
        transform: How the bundle prepares images.
    """
    groups = np.unique(images.groups, return_inverse=True)[1]
    rows = np.arange(len(images))
    if "prior" in policy:
        shares = np.array([policy["prior"]["shares"][name] for name in images.class_names])
        rows = independent_at_prior(logits.values, images.labels, groups, shares)
    looked_at = spread(len(images), LOOKED_AT)
    side = transform.resize_shorter_side
    looks = [appearance(at_most_shorter_side(images.image(int(row)), side)) for row in looked_at]
    return {
        "model_sha256": model_sha256,
        "logits_sha256": logits.sha256,
        "unit": "image" if len(set(images.groups)) == len(images) else "group",
        **reference_of(Policy.from_document(policy).biased(logits.values)[rows], groups[rows]),
        "looks": {"images": len(looks), **quantiles(looks)},
    }


def spread(rows: int, most: int) -> Ints:
    """At most so many of the rows, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(most, rows)).round().astype(np.int64))


def publish(bundle: Path, uri: str) -> None:
    """Publish a bundle that was loaded back where nothing is yet; "" leaves it where it is.

    Raises:
        StorageError: If the place is taken or a transfer fails.
    """
    if uri:
        place = storage.publish_folder(bundle, uri, ARTIFACTS["bundle"].manifest)
        Lines().say(f"published {place}")
