"""VAL_CALIB and VAL_SELECT files for the tests of sweep, calibrate and export."""

from pathlib import Path
from typing import Any

import numpy as np

from natix_lib.contracts import POLICY_OF, STEPS, VAL_CALIB
from natix_lib.decisions.slices import Tags
from natix_lib.files import canonical_json, read_json
from natix_lib.logits import read_labels, write_labels, write_logits
from tests.street_sets import run_step

HEADER = {
    "role": "VAL_CALIB",
    "class_names": canonical_json(["None", "Roadwork"]).decode(),
    "positive_classes": canonical_json(["Roadwork"]).decode(),
    "model_sha256": "model",
    "splits_sha256": "splits",
    "dataset_fingerprint": "dataset",
    "ids_sha256": "ids",
}


def write_set(
    folder: Path,
    n: int = 600,
    strength: float = 3.0,
    seed: int = 0,
    frames: int = 1,
    constant: bool = False,
    names: tuple[str, ...] = ("None", "Roadwork"),
    prefers_last: float = 0.0,
    changes: dict[str, str] | None = None,
    last: float | None = None,
) -> tuple[str, str]:
    """Logits whose argmax is right for most of n images, `frames` of them in each group; paths of both files.

    With two names the second is the positive class. `prefers_last` is added to the last class's logits;
    `changes` are of the header; `last` is the share of images of the last class, None as of the others.
    """
    positive = names[1:] if len(names) == 2 else ()
    header = {
        **HEADER,
        "class_names": canonical_json(list(names)).decode(),
        "positive_classes": canonical_json(list(positive)).decode(),
        **(changes or {}),
    }
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(names), n)
    if last is not None:
        labels = np.where(generator.random(n) < last, len(names) - 1, generator.integers(0, len(names) - 1, n))
    logits = generator.normal(0, 1, (n, len(names)))
    logits[np.arange(n), labels] += strength
    logits[:, -1] += prefers_last
    if constant:
        logits[:, 0] = 50
    name = {"VAL_CALIB": ""}.get(header["role"], f"{header['role']}_")
    paths = str(folder / f"{name}logits"), str(folder / f"{name}labels")
    write_logits(paths[0], logits.astype(np.float32), header)
    write_labels(paths[1], labels, np.arange(n) // frames, header)
    return paths


def add_tags(paths: tuple[str, str], columns: dict[str, list[str | None]], role: str = VAL_CALIB) -> None:
    """Write the labels of `write_set` once more, with tags."""
    labels = read_labels(paths[1], role)
    assert labels.groups is not None
    write_labels(paths[1], labels.values, labels.groups, labels.header, Tags.of(columns, len(labels.values)))


def run_on_set(
    step: str, settings: dict[str, Any], folder: Path, paths: tuple[str, str], **others: str
) -> dict[str, Any]:
    """Run sweep or calibrate on the files of `write_set`, and other inputs by name; the policy's document."""
    taken = [name for name in STEPS[step].inputs if name.startswith("val_calib")]
    made, _ = run_step(step, settings, folder, {**dict(zip(taken, paths, strict=True)), **others})
    return read_json(made[POLICY_OF[step]])
