from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import erf

from natix_lib.backbones.loading import load_backbone
from natix_lib.backbones.patches import Patches, PatchesConfig
from natix_lib.config import Model
from natix_lib.documents import Head, HeadType, Pooling
from natix_lib.errors import ContractError
from natix_lib.files import canonical_json, read_json, sha256_bytes, write_json
from natix_lib.training.artifact import load_classifier, write_classifier
from natix_lib.training.classifier import Classifier
from natix_lib.training.heads import HEADS
from tests.training.test_run import DESCRIPTION


def test_every_head_that_the_config_and_the_document_name_is_built_and_no_other() -> None:
    assert tuple(HEADS) == get_args(HeadType)
    assert Model.model_fields["head_type"].annotation == Head.model_fields["type"].annotation == HeadType


@pytest.mark.parametrize("head_type", HEADS)
@pytest.mark.parametrize("pooling", [["cls", "mean"], ["std", "max"], ["attentive"]])
def test_a_head_keeps_its_type_and_pooling_in_the_artifact_and_comes_back_as_it_was(
    head_type: HeadType, pooling: list[Pooling], tiny_backbone: Path, tmp_path: Path
) -> None:
    classifier = standardised(tiny_backbone, head_type, pooling)
    write_classifier(tmp_path, classifier, DESCRIPTION)
    width = 64 * len(pooling)
    described = {"type": head_type, "features": width, "dropout": 0.25, "pooling": pooling}
    assert read_json(tmp_path / "classifier.json")["head"] == described
    loaded, _ = load_classifier(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    assert loaded.head.head_type == head_type and torch.equal(loaded(pixels), classifier(pixels))


def standardised(backbone: Path, head_type: HeadType, pooling: list[Pooling]) -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier(load_backbone(backbone), 2, head_type, 0.25, pooling).eval()
    classifier.head.standardise(torch.randn(9, classifier.head.width) * 3 + 1)
    return classifier


def described_anew(folder: Path, head: dict) -> None:
    path = folder / "classifier.json"
    body = {key: value for key, value in {**read_json(path), "head": head}.items() if key != "digest"}
    write_json(path, {**body, "digest": sha256_bytes(canonical_json(body))})


def test_a_classifier_that_names_no_pooling_has_the_class_token_and_the_mean(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    classifier = standardised(tiny_backbone, "linear", ["cls", "mean"])
    write_classifier(tmp_path, classifier, DESCRIPTION)
    described_anew(tmp_path, {"type": "linear", "features": 128, "dropout": 0.25})
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_classifier(tmp_path)[0](pixels), classifier(pixels))


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        (["cls"], "does not fit its description"),
        (["attentive"], "does not fit its description"),
        (["cls", "median"], "pooling"),
        (["cls", "cls"], "must name poolings, each once, or attentive alone"),
        (["attentive", "cls"], "must name poolings, each once, or attentive alone"),
        ([], "must name poolings, each once, or attentive alone"),
    ],
)
def test_a_pooling_that_the_weights_are_not_of_or_that_there_is_not_is_refused(
    pooling: list[str], message: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    write_classifier(tmp_path, standardised(tiny_backbone, "linear", ["cls", "mean"]), DESCRIPTION)
    described_anew(tmp_path, {"type": "linear", "features": 128, "dropout": 0.25, "pooling": pooling})
    with pytest.raises(ContractError, match=message):
        load_classifier(tmp_path)


def test_a_classifier_on_patches_names_no_pooling(tmp_path: Path) -> None:
    backbone = Patches(PatchesConfig(2, 6)).eval()
    write_classifier(tmp_path, Classifier(backbone, 2).eval(), DESCRIPTION)
    assert "pooling" not in read_json(tmp_path / "classifier.json")["head"]
    assert load_classifier(tmp_path)[0].head.width == 40


def test_the_hidden_layers_of_a_head_are_those_of_its_type() -> None:
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert HEADS["linear"](16)[0](features) is features
    layers, width = HEADS["mlp"](16)
    weight, bias = (value.detach().numpy() for value in layers.parameters())
    hidden = features.numpy() @ weight.T + bias
    expected = hidden * (1 + erf(hidden / np.sqrt(2))) / 2  # GELU, Hendrycks & Gimpel 2016
    assert width == 16 and np.allclose(layers(features).detach().numpy(), expected, atol=1e-6)
