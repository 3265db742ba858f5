import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from natix_lib.data.trained import Trained, looks_of, recognised, trained_of
from natix_lib.data.windows import window_hashes
from natix_lib.errors import ContractError


def picture(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((240, 160), Image.Resampling.BICUBIC)


def pixels_of(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def looks(*images: Image.Image) -> np.ndarray:
    return looks_of([window_hashes(image) for image in images])


def saved_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.resize((180, 120)).save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


OLD = [picture(seed) for seed in range(20)]
TRAINED = Trained("0" * 64, [pixels_of(image)[:16] for image in OLD], looks(*OLD))


def known(*images: Image.Image, groups: list[int] | None = None, trained: Trained = TRAINED, bits: int = 6):
    rows = np.arange(len(images)) if groups is None else np.array(groups)
    return recognised(trained, [pixels_of(image) for image in images], looks(*images), rows, bits)


def test_equal_pixels_copies_and_mirrored_ones_are_known_again_and_strangers_are_not() -> None:
    mirrored = OLD[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = known(OLD[4], saved_again(OLD[2]), mirrored, picture(90), picture(91))
    assert found.left_out.tolist() == [True, True, True, False, False]
    assert (found.same, found.near, found.compared) == (1, 2, True)


def test_the_whole_group_of_an_image_that_is_known_is_left_out() -> None:
    found = known(picture(90), OLD[4], picture(91), picture(92), groups=[0, 0, 2, 2])
    assert found.left_out.tolist() == [True, True, False, False]
    assert "2 of 4 images are left out" in str(found) and "1 of their groups" in str(found)


@pytest.mark.parametrize("change", [{"bits": -1}, {"trained": Trained("0" * 64, TRAINED.pixels, np.array([], "u8"))}])
def test_without_looks_equal_pixels_alone_are_compared_and_a_sentence_says_so(change: dict) -> None:
    found = known(OLD[4], saved_again(OLD[2]), **change)
    assert found.left_out.tolist() == [True, False]
    assert "Only equal pixels were compared" in found.warnings()[-1]
    assert not any("Only equal" in line for line in known(OLD[4]).warnings())


def test_a_flat_picture_without_a_hash_is_near_to_nothing() -> None:
    flat = Image.new("RGB", (240, 160), "grey")
    trained = Trained("0" * 64, [pixels_of(OLD[0])[:16]], looks(flat, OLD[0]))
    assert not known(flat, trained=trained).left_out.any()


def test_fitted_on_are_train_val_select_and_what_adapt_saw_and_not_val_calib_and_test() -> None:
    names = ("TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST", "UNLABELLED", "split.previous", "held TRAIN", "held TEST")
    digits = {name: f"{number:016x}" for number, name in enumerate(names)}
    found = trained_of({"pixels": digits, "looks": digits}, "1" * 64)
    assert sorted(int(part, 16) for part in found.pixels) == [0, 1, 4, 5, 6] == sorted(found.looks.tolist())
    assert found.splits_sha256 == "1" * 64


def test_what_a_renewed_bundle_carries_on_is_taken_before_its_own_roles() -> None:
    again = trained_of({"pixels": {"VAL_SELECT": "f" * 16}, "trained": TRAINED.document()}, "2" * 64)
    assert again.pixels == TRAINED.pixels and again.looks.tolist() == TRAINED.looks.tolist()
    assert again.splits_sha256 == TRAINED.splits_sha256


def test_a_bundle_that_tells_no_pixels_is_refused() -> None:
    with pytest.raises(ContractError, match="tells no pixel hashes.*train it anew"):
        trained_of({"roles": {}}, "0" * 64)
