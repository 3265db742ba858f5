"""Scoring with a bundle: onnxruntime, numpy and Pillow, no torch.

A bundle is opened by `Bundle.load` alone, wherever it is to score: predict, serve, evaluate. That checks the folder
(`bundle/contents.py`), the model's ends (`bundle/session.py`), and then repeats the drawn images whose logits were
recorded at export, which shows a runtime (another onnxruntime, another processor) or a model that computes something
else. There is no switch to skip any of it: it takes the hashing of the files and the scoring of eight images.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.bundle.contents import Documents, read_bundle, read_golden
from natix_lib.bundle.session import INPUT, open_session
from natix_lib.data.decode import open_image
from natix_lib.decisions import Policy
from natix_lib.decisions.promise import promise
from natix_lib.errors import BundleError, DataError
from natix_lib.transform import Transform

BATCH = 16  # images a call; larger batches gain nothing on a CPU and cost memory


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of one image.

    Attributes:
        label: The most probable class.
        probabilities: Class to probability, calibrated when the policy is.
        score: Score in [0, 1]: the positive classes' probability with the tuned cut at 0.5, or, without positive
            classes, the probability of `label`.
        accepted: Whether the policy stands by the label; a rejected image wants a person.
        classes: The classes of the prediction set, the label among them; None when the policy has no sets.
    """

    label: str
    probabilities: dict[str, float]
    score: float
    accepted: bool
    classes: list[str] | None

    def document(self) -> dict[str, Any]:
        """As JSON, what `natix predict` prints and `natix serve` answers; numbers have six decimals."""
        return {
            "label": self.label,
            "probabilities": {name: round(value, 6) for name, value in self.probabilities.items()},
            "score": round(self.score, 6),
            "accepted": self.accepted,
            **({} if self.classes is None else {"set": self.classes}),
        }


class Bundle:
    """A loaded bundle; make one with `Bundle.load`."""

    def __init__(self, folder: Path, documents: Documents) -> None:
        """Open the model of a folder whose documents were checked, or, in export, are still to be written.

        Raises:
            ContractError: If the policy or the transform is malformed.
            BundleError: If the model cannot be opened or does not fit the transform and the classes.
        """
        self.folder = folder
        self.documents = documents
        self.manifest = manifest = documents.manifest
        self.class_names: list[str] = manifest["class_names"]
        self.positive_classes: list[str] = manifest["positive_classes"]
        self.transform = Transform.from_document(manifest["transform"])
        self.policy = Policy.from_document(documents.policy, folder / manifest["policy"]["file"])
        self._session = open_session(
            folder / manifest["model"]["onnx"], self.transform.image_size, len(self.class_names)
        )

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Open a bundle after checking all that can be checked, its golden images included.

        Raises:
            ContractError: If a part is missing, malformed, changed, too much, or contradicts another.
            BundleError: If the model cannot be opened, or does not repeat the golden logits here.
        """
        root = Path(folder)
        bundle = cls(root, read_bundle(root))
        bundle.check_golden()
        return bundle

    @property
    def promise(self) -> str:
        """What the policy promises of what it accepts: a sentence that begins with `certified` or `uncertified`."""
        return promise(self.documents.policy)

    def logits(
        self, images: Iterable[Image.Image], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Logits of images of any mode and size, averaged over views.

        Args:
            images: Read one batch at a time.
            progress: Called with the number of images done so far.

        Returns:
            float32 (n, C).

        Raises:
            BundleError: If a logit is not finite, or onnxruntime fails.
        """
        parts: list[NDArray[np.float32]] = []
        done = 0
        for batch in _batched(images, BATCH):
            pixels = np.concatenate([self.transform(image) for image in batch])
            try:
                (logits,) = self._session.run(None, {INPUT: pixels})
            except Exception as error:  # onnxruntime's errors have no common base but Exception
                raise BundleError(f"bundle {self.folder}: the model fails: {error}") from error
            parts.append(logits.reshape(len(batch), self.transform.view_count, -1).mean(axis=1))
            done += len(batch)
            if progress:
                progress(done)
        result = np.concatenate(parts) if parts else np.empty((0, len(self.class_names)), np.float32)
        if not np.isfinite(result).all():
            row = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
            raise BundleError(f"bundle {self.folder}: the model gives a logit that is not finite for image {row}")
        return result

    def predict(self, images: Iterable[Image.Image]) -> list[Prediction]:
        """Predictions of images, in order."""
        decisions = self.policy.apply(self.logits(images))
        return [
            Prediction(
                label=self.class_names[int(decisions.prediction[i])],
                probabilities=dict(zip(self.class_names, map(float, decisions.probabilities[i]), strict=True)),
                score=float(decisions.score[i]),
                accepted=bool(decisions.accepted[i]),
                classes=None
                if decisions.sets is None
                else [name for name, held in zip(self.class_names, decisions.sets[i], strict=True) if held],
            )
            for i in range(len(decisions.prediction))
        ]

    def check_golden(self) -> float:
        """Repeat the golden images of the bundle.

        Returns:
            The largest difference of a logit, relative to max(1, |logit|).

        Raises:
            ContractError: If golden.json does not belong to the bundle.
            BundleError: If it is above the bundle's tolerance, or an image cannot be decoded.
        """
        paths, recorded = read_golden(self.folder, self.manifest)
        try:
            worst = largest_difference(self.logits(map(open_image, paths)), recorded)
        except DataError as error:
            raise BundleError(f"bundle {self.folder}: golden {error}") from error
        tolerance = self.manifest["parity"]["tolerance"]
        if not worst <= tolerance:
            raise BundleError(
                f"bundle {self.folder}: golden images give logits that differ by {worst:.2e}, tolerance {tolerance:.0e}"
            )
        return worst


def largest_difference(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest |values - expected| / max(1, |expected|) of two (n, C) arrays."""
    scale = np.maximum(1.0, np.abs(expected, dtype=np.float64))
    return float(np.max(np.abs(values.astype(np.float64) - expected) / scale, initial=0.0))


def _batched(images: Iterable[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
