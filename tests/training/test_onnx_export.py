import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from natix_lib.backbones.loading import load_backbone
from natix_lib.bundle.contents import MODEL
from natix_lib.bundle.session import INPUT, OUTPUT
from natix_lib.files import sha256_file
from natix_lib.training.classifier import Classifier
from natix_lib.training.onnx_export import export_onnx

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}


def classifier(model_type: str, tiny_backbone: Path) -> Classifier:
    torch.manual_seed(0)
    if model_type == "dinov3":
        backbone = load_backbone(tiny_backbone)
    elif model_type == "dinov2":
        backbone = Dinov2Model(Dinov2Config(**SMALL)).eval()
    else:
        backbone = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL)).eval()
    return Classifier(backbone, 3, "mlp", 0.1).eval()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["dinov3", "dinov2", "dinov2 with registers"])
def test_onnx_repeats_torch_for_any_number_of_images(model_type: str, tiny_backbone: Path, tmp_path: Path) -> None:
    model = classifier(model_type, tiny_backbone)
    export_onnx(model, 32, tmp_path / MODEL, INPUT, OUTPUT)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for images in (1, 5):
        pixels = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(images))
        with torch.no_grad():
            expected = model(pixels).numpy()
        (logits,) = session.run(None, {"pixel_values": pixels.numpy()})
        assert np.allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
def test_the_model_tells_nothing_of_the_machine(tiny_backbone: Path, tmp_path: Path) -> None:
    export_onnx(classifier("dinov3", tiny_backbone), 32, tmp_path / MODEL, INPUT, OUTPUT)
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    text = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in text and b"site-packages" not in text and str(Path.cwd()).encode() not in text


@pytest.mark.slow
def test_equal_models_give_equal_bytes_in_every_process(tiny_backbone: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from natix_lib.backbones.loading import load_backbone;"
        "from natix_lib.training.classifier import Classifier; from natix_lib.training.onnx_export import export_onnx;"
        "torch.manual_seed(0); out = Path(sys.argv[2]); out.mkdir();"
        "export_onnx(Classifier(load_backbone(sys.argv[1]), 2), 32, out / 'model.onnx', 'pixel_values', 'logits')"
    )
    for name in ("a", "b"):
        command = [sys.executable, "-W", "ignore", "-c", code, str(tiny_backbone), str(tmp_path / name)]
        subprocess.run(command, check=True)
    for file in ("model.onnx", "model.onnx.data"):
        assert sha256_file(tmp_path / "a" / file) == sha256_file(tmp_path / "b" / file)
