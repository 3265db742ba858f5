from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import erf

from natix_lib.backbones.loading import load_backbone
from natix_lib.config import Model
from natix_lib.documents import Head, HeadType
from natix_lib.files import read_json
from natix_lib.training.artifact import load_classifier, write_classifier
from natix_lib.training.classifier import Classifier
from natix_lib.training.heads import HEADS
from tests.training.test_run import DESCRIPTION


def test_every_head_that_the_config_and_the_document_name_is_built_and_no_other() -> None:
    assert tuple(HEADS) == get_args(HeadType)
    assert Model.model_fields["head_type"].annotation == Head.model_fields["type"].annotation == HeadType


@pytest.mark.parametrize("head_type", HEADS)
def test_a_head_keeps_its_type_in_the_artifact_and_comes_back_as_it_was(
    head_type: HeadType, tiny_backbone: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    classifier = Classifier(load_backbone(tiny_backbone), 2, head_type, 0.25).eval()
    classifier.head.standardise(torch.randn(9, classifier.head.width) * 3 + 1)
    write_classifier(tmp_path, classifier, DESCRIPTION)
    described = {"type": head_type, "features": 128, "dropout": 0.25}
    assert read_json(tmp_path / "classifier.json")["head"] == described
    loaded, _ = load_classifier(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    assert loaded.head.head_type == head_type and torch.equal(loaded(pixels), classifier(pixels))


def test_the_hidden_layers_of_a_head_are_those_of_its_type() -> None:
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert HEADS["linear"](16)[0](features) is features
    layers, width = HEADS["mlp"](16)
    weight, bias = (value.detach().numpy() for value in layers.parameters())
    hidden = features.numpy() @ weight.T + bias
    expected = hidden * (1 + erf(hidden / np.sqrt(2))) / 2  # GELU, Hendrycks & Gimpel 2016
    assert width == 16 and np.allclose(layers(features).detach().numpy(), expected, atol=1e-6)
