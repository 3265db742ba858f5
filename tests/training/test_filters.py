from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from natix_lib.backbones.patches import Patches, PatchesConfig
from natix_lib.bundle.contents import MODEL
from natix_lib.bundle.session import INPUT, OUTPUT
from natix_lib.config import Dataloader
from natix_lib.distributed.world import ALONE
from natix_lib.training import filters
from natix_lib.training.artifact import load_classifier, write_classifier
from natix_lib.training.features import silent
from natix_lib.training.filters import learn_filters
from natix_lib.training.onnx_export import export_onnx
from natix_lib.training.recipe import Sets
from natix_lib.training.run import Trained, train_classifier
from natix_lib.training.views import Views
from natix_lib.transform import Transform
from tests.training.test_run import DESCRIPTION, Squares, accuracy, recipe

TRANSFORM = Transform(32, 64, True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "SAMPLED", 3000)


def learnt(images: Squares, batch_size: int = 16) -> tuple[Patches, str | None]:
    backbone = Patches(PatchesConfig(8))
    views = Views(images, TRANSFORM, 0)
    return backbone, learn_filters(backbone, views, Dataloader(batch_size=batch_size, num_workers=0), silent, ALONE)


def train(val_select: int = 2) -> Trained:
    sets = Sets(Squares(96, 1), Squares(32, val_select), Squares(40, 3), 2, "data")
    return train_classifier(Patches(PatchesConfig(8)), "weights", sets, recipe(TRANSFORM))


def test_a_classifier_on_filters_that_it_has_learnt_knows_the_squares_and_is_stored_whole(tmp_path: Path) -> None:
    trained = train()
    assert accuracy(trained) == 1.0
    write_classifier(tmp_path, trained.classifier, DESCRIPTION)
    classifier, _ = load_classifier(tmp_path)
    pixels = torch.from_numpy(np.stack([TRANSFORM(Squares(40, 3).image(row)) for row in range(40)]))
    with torch.no_grad():
        logits = classifier(pixels.flatten(0, 1)).reshape(40, 3, 2).mean(dim=1)
    assert np.allclose(logits.numpy(), trained.val_calib_logits, atol=1e-6)


def test_filters_are_learnt_from_train_alone() -> None:
    first, other = (train(select).classifier.backbone.state_dict() for select in (2, 5))
    assert torch.equal(first["filters"], other["filters"]) and first["filters"].any()


def test_what_is_learnt_is_named_by_the_images_and_not_learnt_again() -> None:
    backbone, name = learnt(Squares(24, 1))
    assert learnt(Squares(24, 1))[1] == name != learnt(Squares(24, 4))[1]
    views = Views(Squares(24, 4), TRANSFORM, 0)
    assert learn_filters(backbone, views, Dataloader(num_workers=0), silent, ALONE) is None
    assert torch.equal(backbone.filters, learnt(Squares(24, 1))[0].filters)


@pytest.mark.slow
def test_the_exported_model_gives_the_same_logits(tmp_path: Path) -> None:
    classifier = train().classifier
    export_onnx(classifier, 32, tmp_path / MODEL, INPUT, OUTPUT)
    session = onnxruntime.InferenceSession(str(tmp_path / MODEL), providers=["CPUExecutionProvider"])
    for images in (1, 5):
        pixels = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(images))
        with torch.no_grad():
            expected = classifier(pixels).numpy()
        (logits,) = session.run(None, {INPUT: pixels.numpy()})
        assert np.allclose(logits, expected, atol=1e-4)
