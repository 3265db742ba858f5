"""Scoring with a bundle: onnxruntime, numpy and Pillow, no torch.

A bundle is opened by `Bundle.load` alone, wherever it is to score: predict, serve, evaluate. That checks the folder
(`bundle/contents.py`), the model's ends (`bundle/session.py`), and then repeats the drawn images whose logits were
recorded at export, which shows a runtime (another onnxruntime, another processor) or a model that computes something
else. There is no switch to skip any of it: it takes the hashing of the files and the scoring of eight images.
"""

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import IOBase
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.bundle.contents import DRIFT, Documents, read_bundle, read_golden
from natix_lib.bundle.pictures import KINDS, Opener, Picture, open_picture
from natix_lib.bundle.session import INPUT, open_session
from natix_lib.cpus import cpu_threads
from natix_lib.data.ahead import ahead
from natix_lib.decisions import Policy
from natix_lib.decisions.drift import Drift
from natix_lib.decisions.promise import promise
from natix_lib.errors import BundleError, CalibrationError, ContractError, DataError
from natix_lib.transform import Transform

NOT_WATCHED = "drift is not watched: the bundle has no drift.json, which export writes"
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
        log_odds: Log-odds of `label` at temperature 1, which drift is watched on.
    """

    label: str
    probabilities: dict[str, float]
    score: float
    accepted: bool
    classes: list[str] | None
    log_odds: float

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
        self._threads = cpu_threads()
        self.golden_difference = math.nan  # until the golden images are repeated
        self._session = open_session(
            folder / manifest["model"]["onnx"], self.transform.image_size, len(self.class_names)
        )

    @property
    def promise(self) -> str:
        """What the policy promises of what it accepts: a sentence that begins with `certified` or `uncertified`."""
        return promise(self.documents.policy)

    def drift(self) -> Drift | None:
        """A test that begins, of whether images still look like those of VAL_CALIB; None without drift.json.

        Raises:
            ContractError: If drift.json names levels that this natix does not know.
        """
        document = self.documents.drift
        if document is None:
            return None
        try:
            return Drift(document, int(document["logits_sha256"], 16))
        except CalibrationError as error:
            raise ContractError(f"{self.folder / DRIFT}: {error}") from error

    @classmethod
    def load(cls, folder: str | PathLike[str], sha256: str = "") -> "Bundle":
        """Open a bundle after checking all that can be checked, its golden images included.

        Args:
            folder: The bundle's folder.
            sha256: The `bundle_sha256` that it must have, or its model is not opened; "" takes any.

        Raises:
            ContractError: If a part is missing, malformed, changed, too much, or contradicts another.
            BundleError: If it is another bundle, the model cannot be opened, or does not repeat the golden logits here.
        """
        root = Path(folder)
        documents = read_bundle(root)
        if sha256 and documents.sha256 != sha256.lower():
            raise BundleError(f"bundle {root}: bundle_sha256 must be {sha256}, got {documents.sha256}")
        bundle = cls(root, documents)
        bundle.check_golden()
        return bundle

    def logits(self, images: Iterable[Picture], progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Logits of images, averaged over views.

        Args:
            images: Read a little ahead of the model; see `open_picture`.
            progress: Called with the number of images done so far.

        Returns:
            float32 (n, C).

        Raises:
            DataError: If an image cannot be read.
            BundleError: If a logit is not finite, or onnxruntime fails.
        """
        rows: list[NDArray[np.float32]] = []
        for batch in self._batches(_named(images)):
            for logits in batch:
                if isinstance(logits, DataError):
                    raise logits
                rows.append(logits)
            if progress:
                progress(len(rows))
        return np.stack(rows) if rows else np.empty((0, len(self.class_names)), np.float32)

    @overload
    def predict(self, images: Picture) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Iterable[Picture]) -> list[Prediction]: ...

    def predict(self, images: Picture | Iterable[Picture]) -> Prediction | list[Prediction]:
        """Score one image or many.

        Args:
            images: One image or an iterable of images: the path of a file or its bytes, in a format that ingest reads;
                an array uint8 (H, W, 3), RGB, or (H, W), grey; a Pillow image of any mode. They are read a little
                ahead of the model, so an iterable may give more than fit into memory.

        Returns:
            Of one image its prediction, of an iterable a list in its order.

        Raises:
            DataError: If an image cannot be read, with its place in the iterable and its path; nothing is returned of
                the others then. `scored` goes on instead.
            BundleError: If a logit is not finite, or onnxruntime fails.
        """
        if not isinstance(images, (*KINDS, Iterable)) or isinstance(images, (Mapping, IOBase)):
            raise DataError(f"images must be paths, bytes, arrays or Pillow images, got a {type(images).__name__}")
        one = isinstance(images, KINDS)
        predictions = []
        for result in self.scored(_named([images] if isinstance(images, KINDS) else images, one)):
            if isinstance(result, DataError):
                raise result
            predictions.append(result)
        return predictions[0] if one else predictions

    def scored(self, images: Iterable[Opener]) -> Generator[Prediction | DataError, None, None]:
        """Score images as they come, in order; memory does not grow with their number.

        Args:
            images: Functions that open an image, upright RGB, or raise DataError; each is told the shorter side that
                is enough, as `data.decode.decode` is. They are called in threads, as many as `cpu_threads` says, a
                little ahead of the model.

        Returns:
            Of each image its prediction, or the error with which it could not be opened.

        Raises:
            BundleError: If a logit is not finite, or onnxruntime fails.
        """
        for batch in self._batches(images):
            logits = [row for row in batch if not isinstance(row, DataError)]
            predictions = iter(self._predictions(np.array(logits).reshape(-1, len(self.class_names))))
            for row in batch:
                yield row if isinstance(row, DataError) else next(predictions)

    def _batches(self, images: Iterable[Opener]) -> Iterator[list[NDArray[np.float32] | DataError]]:
        """Logits (C,) of each image, or why there are none, BATCH images at a time."""

        def views(open_one: Opener) -> NDArray[np.float32] | DataError:
            try:
                return self.transform(open_one(self.transform.resize_shorter_side))
            except DataError as error:
                return error

        done = 0
        prepared = ahead(views, images, self._threads, BATCH)
        while batch := list(itertools.islice(prepared, BATCH)):
            pixels = [each for each in batch if not isinstance(each, DataError)]
            logits: Iterator[NDArray[np.float32]] = iter(list(self._run(pixels)) if pixels else [])
            rows: list[NDArray[np.float32] | DataError] = [
                each if isinstance(each, DataError) else next(logits) for each in batch
            ]
            for number, row in enumerate(rows, done):
                if not isinstance(row, DataError) and not np.isfinite(row).all():
                    raise BundleError(
                        f"bundle {self.folder}: the model gives a logit that is not finite for image {number}"
                    )
            done += len(rows)
            yield rows

    def _run(self, pixels: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Logits (n, C) of the views of n images."""
        try:
            (logits,) = self._session.run(None, {INPUT: np.concatenate(pixels)})
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise BundleError(f"bundle {self.folder}: the model fails: {error}") from error
        averaged: NDArray[np.float32] = logits.reshape(len(pixels), self.transform.view_count, -1).mean(axis=1)
        return averaged

    def _predictions(self, logits: NDArray[np.float32]) -> list[Prediction]:
        decisions = self.policy.apply(logits)
        return [
            Prediction(
                label=self.class_names[int(decisions.prediction[i])],
                probabilities=dict(zip(self.class_names, map(float, decisions.probabilities[i]), strict=True)),
                score=float(decisions.score[i]),
                accepted=bool(decisions.accepted[i]),
                classes=None
                if decisions.sets is None
                else [name for name, held in zip(self.class_names, decisions.sets[i], strict=True) if held],
                log_odds=float(decisions.confidence[i]),
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
            worst = largest_difference(self.logits(paths), recorded)
        except DataError as error:
            raise BundleError(f"bundle {self.folder}: golden {error}") from error
        self.golden_difference = worst
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


def _named(images: Iterable[Picture], only: bool = False) -> Iterator[Opener]:
    """Functions that open images, with errors that say which."""

    def open_named(name: str, image: Picture, shorter_side: int) -> Image.Image:
        try:
            return open_picture(image, shorter_side)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    for number, image in enumerate(images):
        path = f" {fsdecode(image)}" if isinstance(image, str | PathLike) else ""
        yield partial(open_named, f"image{path}" if only else f"images[{number}]{path}", image)
