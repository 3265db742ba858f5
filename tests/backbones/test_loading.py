import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from natix_lib.backbones.loading import build_backbone, load_backbone, prefix_tokens
from natix_lib.errors import ContractError
from tests.small_run import backbone_sha256


@pytest.fixture
def copy(tiny_backbone: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_backbone, tmp_path / "copy"))


def edit(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_whole_backbone_loads_in_eval_mode(tiny_backbone: Path) -> None:
    model = load_backbone(tiny_backbone)
    assert not model.training and prefix_tokens(model.config) == 5
    assert model(torch.zeros(1, 3, 32, 32)).last_hidden_state.shape == (1, 5 + 16, 64)


def test_a_removed_key_is_an_error_and_not_a_warning(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.pop("norm.weight"))
    with pytest.raises(ContractError, match="has 1 missing keys: norm.weight"):
        load_backbone(copy)


def test_a_renamed_key_is_an_error(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update(norm_weight=tensors.pop("norm.weight")))
    with pytest.raises(ContractError, match="keys"):
        load_backbone(copy)


def test_an_unexpected_key_is_an_error(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update(surplus=torch.zeros(1)))
    with pytest.raises(ContractError, match="has 1 unexpected keys: surplus"):
        load_backbone(copy)


def test_a_key_of_another_shape_is_an_error(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update({"norm.weight": torch.zeros(65)}))
    with pytest.raises(ContractError, match="norm.weight"):
        load_backbone(copy)


def test_an_unknown_model_type_is_refused(copy: Path) -> None:
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"dinov3_vit"', '"bert"'))
    with pytest.raises(ContractError, match="model_type must be one of dinov3_vit, dinov2, .*, got 'bert'"):
        load_backbone(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ContractError, match=r"has no \.safetensors file"):
        load_backbone(copy)


def test_dinov2_loads_too(tmp_path: Path) -> None:
    config = Dinov2Config(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    model = load_backbone(tmp_path)
    assert prefix_tokens(model.config) == 1


def test_the_hash_follows_the_weights_and_not_the_place(tiny_backbone: Path, copy: Path) -> None:
    assert backbone_sha256(copy) == backbone_sha256(tiny_backbone)
    edit(copy, lambda tensors: tensors["norm.weight"].add_(1))
    assert backbone_sha256(copy) != backbone_sha256(tiny_backbone)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", ["dinov2"], "model_type must be one of .*, got \\['dinov2'\\]"),
        ("hidden_size", 0, "hidden_size must be a whole number from 1 to 16384, got 0"),
        ("hidden_size", "64", "hidden_size must be a whole number from 1 to 16384, got '64'"),
        ("num_hidden_layers", 1_000_000, "num_hidden_layers must be a whole number from 1 to 256, got 1000000"),
        ("num_channels", 4, "num_channels must be a whole number from 3 to 3, got 4"),
        ("hidden_act", "x", "cannot be loaded: KeyError: 'x'"),
        ("layer_norm_eps", None, "cannot be loaded: .*layer_norm_eps"),
        ("dtype", "foo", "cannot be loaded: "),
    ],
)
def test_a_config_that_makes_no_model_is_one_line(copy: Path, key: str, value: object, message: str) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ContractError, match=message):
        load_backbone(copy)
    if key != "dtype":  # a matter of files alone
        with pytest.raises(ContractError, match=message.replace("cannot be loaded", "makes no model")):
            build_backbone(json.loads(path.read_text()))


@pytest.mark.parametrize("content", [b"", b"x" * 100, "cut", "head"])
def test_weights_that_are_damaged_are_one_line_with_their_file(copy: Path, content: bytes | str) -> None:
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    damaged = {"cut": whole[:-10], "head": b"\xff" * 8 + whole[8:]}
    path.write_bytes(damaged[content] if isinstance(content, str) else content)
    with pytest.raises(ContractError, match=r"model\.safetensors is no readable safetensors file: "):
        load_backbone(copy)


@pytest.mark.parametrize(("dtype", "name"), [(torch.int8, "I8"), (torch.int64, "I64"), (torch.complex64, "C64")])
def test_weights_of_another_kind_than_floats_are_not_cast(copy: Path, dtype: torch.dtype, name: str) -> None:
    edit(copy, lambda tensors: tensors.update({"norm.weight": tensors["norm.weight"].to(dtype)}))
    with pytest.raises(ContractError, match=f"norm.weight must be of BF16, F16, F32, F64, got {name}"):
        load_backbone(copy)


def test_weights_that_are_not_finite_are_refused(copy: Path) -> None:
    edit(copy, lambda tensors: tensors["norm.weight"].fill_(float("nan")))
    with pytest.raises(ContractError, match=r"holds numbers that are not finite: norm\.weight"):
        load_backbone(copy)
