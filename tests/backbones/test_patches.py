from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA

from natix_lib.backbones.features import Extractor
from natix_lib.backbones.loading import load_backbone
from natix_lib.backbones.patches import (
    THRESHOLD,
    VARIANCE_FLOOR,
    WHITENING_FLOOR,
    Patches,
    PatchesConfig,
    averaged_down,
    drawn_patches,
    learnt_filters,
)
from natix_lib.backbones.sources import copy_backbone, is_folder, licence, normalisation
from natix_lib.errors import ContractError
from natix_lib.files import read_json, write_json


def patches(many: int = 4000, seed: int = 0) -> torch.Tensor:
    """Patches of 3 x 3 pixels in which neighbours are alike, as rows."""
    noise = torch.rand(many, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 3, 1).flatten(1)


def learnt(filters: int = 4, side: int = 3) -> Patches:
    backbone = Patches(PatchesConfig(filters, side))
    backbone.learn(patches().reshape(-1, 3, 3, 3), 0)
    return backbone


@pytest.mark.parametrize(("size", "factor", "stride"), [(20, 1, 1), (64, 1, 2), (131, 2, 2)])
def test_the_features_are_those_of_each_patch_by_itself(size: int, factor: int, stride: int) -> None:
    backbone, image = learnt(), np.random.default_rng(1).random((3, size, size))
    small = image[:, : size // factor * factor, : size // factor * factor]
    small = small.reshape(3, size // factor, factor, size // factor, factor).mean(axis=(2, 4))
    places = range(0, small.shape[1] - 2, stride)
    weights, offset = backbone.filters.flatten(1).double().numpy(), backbone.offset.double().numpy()
    along = np.empty((4, len(places), len(places)))
    for row, top in enumerate(places):
        for column, left in enumerate(places):
            patch = small[:, top : top + 3, left : left + 3].ravel()
            normal = (patch - patch.mean()) / np.sqrt(patch.var() + VARIANCE_FLOOR)
            along[:, row, column] = weights @ normal + offset
    half = len(places) // 2
    whole, first, second = slice(2 * half), slice(half), slice(half, 2 * half)
    quarters = [(rows, columns) for rows in (first, second) for columns in (first, second)]
    expected = []
    for sign in (1, -1):
        rectified = np.maximum(sign * along - THRESHOLD, 0)
        expected += [rectified[:, whole, whole].mean(axis=(1, 2)), rectified[:, whole, whole].max(axis=(1, 2))]
        for number in (np.mean, np.max):
            expected.append(np.stack([number(rectified[:, *part], axis=(1, 2)) for part in quarters], axis=1).ravel())
    features = Extractor(backbone).features(torch.from_numpy(image[None]).float())
    assert features.shape == (1, Extractor(backbone).width) == (1, 80)
    assert np.allclose(features[0].numpy(), np.concatenate(expected), atol=2e-4)


def test_filters_are_unit_directions_among_whitened_patches_and_the_mean_patch_goes_along_none() -> None:
    values = patches().double()
    values = values - values.mean(dim=1, keepdim=True)
    values = values / (values.var(dim=1, correction=0, keepdim=True) + VARIANCE_FLOOR).sqrt()
    axes = PCA().fit(values.numpy())
    filters, offset = (value.double().numpy() for value in learnt_filters(patches(), 50, 0))
    directions = filters @ axes.components_.T * np.sqrt(axes.explained_variance_ + WHITENING_FLOOR)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-3)
    assert np.allclose((values.numpy() @ filters.T + offset).mean(axis=0), 0, atol=1e-4)


def test_directions_that_patches_were_made_of_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.linalg.qr(torch.randn(27, 8, generator=generator))[0].T
    true -= true.mean(dim=1, keepdim=True)
    which = torch.randint(8, (6000,), generator=generator)
    sign = torch.randint(2, (6000, 1), generator=generator) * 2.0 - 1
    rows = true[which] * sign + 0.01 * torch.randn(6000, 27, generator=generator)
    filters, _ = learnt_filters(rows, 24, 0)
    cosines = torch.nn.functional.normalize(filters) @ torch.nn.functional.normalize(true).T
    assert cosines.abs().amax(dim=0).min() > 0.9


def test_equal_seeds_give_equal_filters_and_others_give_others() -> None:
    first, again, other = (learnt_filters(patches(), 8, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_patches_are_drawn_from_the_image_and_from_all_of_it() -> None:
    images = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    drawn = drawn_patches(images, 3, 400, torch.Generator().manual_seed(0))
    windows = images.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).reshape(2, 36, 27)
    for image in (0, 1):
        rows = {tuple(patch.tolist()) for patch in drawn[image * 400 : (image + 1) * 400].flatten(1)}
        assert rows == {tuple(window.tolist()) for window in windows[image]}


def test_an_image_is_averaged_by_the_largest_whole_factor_that_leaves_64_pixels() -> None:
    sizes = [averaged_down(torch.zeros(1, 3, side, side)).shape[-1] for side in (32, 64, 127, 128, 224)]
    assert sizes == [32, 64, 127, 64, 74]


def test_what_fetch_writes_waits_to_be_learnt_and_what_was_learnt_is_loaded(tmp_path: Path) -> None:
    copy_backbone("patches", "main", tmp_path, tmp_path)
    backbone = load_backbone(tmp_path)
    assert isinstance(backbone, Patches) and not backbone.learnt and Extractor(backbone).width == 4000
    assert normalisation(tmp_path) == ([0.0] * 3, [1.0] * 3) and licence("patches", tmp_path)["files"] == []
    own = learnt()
    write_json(tmp_path / "config.json", own.config.to_dict())
    save_file(own.state_dict(), tmp_path / "model.safetensors")
    again = load_backbone(tmp_path)
    assert isinstance(again, Patches) and again.learnt and torch.equal(again.filters, own.filters)


def test_a_folder_of_that_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patches").mkdir()
    assert is_folder("./patches") and not is_folder("patches")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 5}, "does not fit its config.json"),
        ({"filters": 0}, "filters must be a whole number from 1 to 4096, got 0"),
        ({"filters": True}, "filters must be a whole number from 1 to 4096, got True"),
        ({"side": 17}, "side must be a whole number from 2 to 16, got 17"),
        ({"stride": 2}, "must have filters, side, model_type"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    copy_backbone("patches", "main", tmp_path, tmp_path)
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | change)
    with pytest.raises(ContractError, match=message):
        load_backbone(tmp_path)


def test_a_filter_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    copy_backbone("patches", "main", tmp_path, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["filters"][3, 0, 0, 0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ContractError, match="numbers that are not finite: filters"):
        load_backbone(tmp_path)
