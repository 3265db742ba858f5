"""Python's way in: `natix_lib.load(bundle).predict` of paths, bytes, arrays and Pillow images, one or many."""

import doctest
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import natix_lib
from natix_lib.bundle.runtime import Bundle, Prediction
from natix_lib.data.decode import open_image
from natix_lib.data.sets import open_set
from natix_lib.errors import BundleError, DataError
from tests.small_run import Chain

Picture = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return natix_lib.load(tiny_bundle)


def alike(one: Prediction, other: Prediction) -> bool:
    return one.document()["probabilities"] == pytest.approx(other.document()["probabilities"], abs=2e-6)


def test_one_picture_is_predicted_alike_in_every_form(bundle: Bundle, picture: Picture, tmp_path: Path) -> None:
    image = picture(60, 40)
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    forms: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), array, image]
    expected = bundle.predict(open_image(tmp_path / "a.png"))
    assert isinstance(expected, Prediction)
    for form in (*forms, Image.open(tmp_path / "a.png"), np.ascontiguousarray(array[::-1])[::-1]):
        prediction = bundle.predict(form)
        assert isinstance(prediction, Prediction) and alike(prediction, expected), type(form)
    many = bundle.predict(forms)
    assert isinstance(many, list) and len(many) == len(forms) and all(alike(each, expected) for each in many)
    assert alike(bundle.predict(array[:, :, 0]), bundle.predict(Image.fromarray(array[:, :, 0])))


def test_many_are_predicted_in_their_order_from_any_iterable(bundle: Bundle, picture: Picture) -> None:
    images = [picture(300 if seed % 7 == 0 else 40, 40, seed=seed) for seed in range(50)]
    expected = [bundle.predict(image) for image in images]
    assert len({each.score for each in expected}) == 50
    for many in (images, tuple(images), iter(images), (np.asarray(image) for image in images)):
        assert all(alike(*pair) for pair in zip(bundle.predict(many), expected, strict=True))
    assert bundle.predict([]) == []


def test_an_iterable_is_read_little_ahead_of_the_model(bundle: Bundle, picture: Picture) -> None:
    taken = 0

    def opened() -> Iterator[Callable[[int], Image.Image]]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield lambda _: picture()

    results = bundle.scored(opened())
    assert isinstance(next(results), Prediction) and taken <= 33
    results.close()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("gone.jpg", "gone.jpg: no such file"),
        ("nul\0.jpg", "embedded null byte"),
        (b"", ": the file is empty"),
        (b"no picture", "no image format is known for it"),
        (np.zeros((8, 8, 3), np.float32), r"uint8 of shape \(H, W, 3\) or \(H, W\), it is float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"it is uint8 \(2, 8, 8, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), r"it is uint8 \(3, 8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"it is uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"it is uint8 \(0, 8, 3\)"),
        (np.zeros((1, 800), np.uint8), "800 x 1 pixels: the longer side may be at most 50 times the shorter"),
        (7, "a picture must be a path, bytes, an array or a Pillow image, it is a int"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_told_in_one_line_with_its_place(
    bundle: Bundle, picture: Picture, wrong: Any, reason: str
) -> None:
    if not isinstance(wrong, int):
        with pytest.raises(DataError, match=f"^image.*{reason}"):
            bundle.predict(wrong)
    with pytest.raises(DataError, match=rf"^images\[20\].*{reason}") as raised:
        bundle.predict([*[picture()] * 20, wrong, picture()])
    assert "\n" not in str(raised.value)


def test_a_pillow_image_whose_file_ends_too_early_is_a_data_error(bundle: Bundle, picture: Picture) -> None:
    file = io.BytesIO()
    picture(60, 40).save(file, "JPEG")
    with pytest.raises(DataError, match=r"images\[0\]: cannot be decoded: .*truncated"):
        bundle.predict([Image.open(io.BytesIO(file.getvalue()[:900]))])


def test_a_picture_that_cannot_be_read_does_not_end_what_is_scored(bundle: Bundle, picture: Picture) -> None:
    def broken(_: int) -> Image.Image:
        raise DataError("broken")

    def whole(_: int) -> Image.Image:
        return picture()

    results = list(bundle.scored([broken, whole, *[broken] * 40, whole]))
    assert [isinstance(each, Prediction) for each in results] == [False, True, *[False] * 40, True]
    assert str(results[0]) == "broken"


def test_a_logit_that_is_not_finite_is_told_with_its_image(
    tiny_bundle: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = natix_lib.load(tiny_bundle)
    run, calls = opened._run, []

    def spoiled(pixels: list) -> np.ndarray:
        calls.append(len(pixels))
        logits = run(pixels)
        logits[1, 0] = np.inf if len(calls) == 2 else logits[1, 0]
        return logits

    monkeypatch.setattr(opened, "_run", spoiled)
    with pytest.raises(BundleError, match="a logit that is not finite for image 17"):
        opened.predict([picture()] * 20)


def test_the_example_of_load_runs_as_it_stands(
    chain: Chain, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = open_set(chain.paths["test_set"], "TEST")
    predictions = bundle.predict(test.image(i) for i in range(len(test)))
    for name, label in (("street.jpg", "Roadwork"), ("field.jpg", "None")):
        row = next(i for i, each in enumerate(predictions) if each.label == label and each.accepted)
        (tmp_path / name).write_bytes(test.image_bytes(row))
    (tmp_path / "runs" / "first").mkdir(parents=True)
    shutil.copytree(chain.paths["bundle"], tmp_path / "runs" / "first" / "bundle")
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=False).find(natix_lib.load, globs={})
    results = doctest.DocTestRunner().run(finder[0])
    assert results.attempted >= 4 and results.failed == 0


HIDE = """
import sys
class Hidden:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Hidden())
"""
BEYOND_BASE = {
    "torch",
    "transformers",
    "pandas",
    "pyarrow",
    "datasets",
    "sklearn",
    "matplotlib",
    "onnx",
    "kfp",
}


def test_python_scores_with_the_base_install_and_importing_costs_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    code = HIDE.format(hidden=BEYOND_BASE) + (
        "before = set(sys.modules); import natix_lib\n"
        "assert not {'numpy', 'PIL', 'pydantic', 'natix_lib.errors'} & (set(sys.modules) - before)\n"
        "print(natix_lib.load(sys.argv[1]).predict(sys.argv[2]).label)"
    )
    command = [sys.executable, "-c", code, str(tiny_bundle), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in ("None", "Roadwork"), done.stderr


class Named:
    """A path by os.PathLike, in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def test_what_can_be_no_picture_at_all_is_one_line_too(bundle: Bundle, picture: Picture, tmp_path: Path) -> None:
    picture(60, 40).save(tmp_path / "a.png")
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    wrong: list[Any] = [None, 5, io.BytesIO(b"one\ntwo\n"), {"a.png": 1}, Image.new("RGB", (0, 0)), closed]
    for one in wrong:
        with pytest.raises(DataError) as error:
            bundle.predict(one)
        assert "\n" not in str(error.value), one
    named: Any = Named(tmp_path / "a.png")
    assert isinstance(bundle.predict(named), Prediction)
