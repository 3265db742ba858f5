import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_lib.bundle.runtime import Bundle
from natix_lib.data.sets import open_set
from natix_lib.errors import BundleError, ContractError
from natix_lib.files import read_json
from natix_lib.logits import read_logits
from tests.damage import changed_bundle
from tests.small_run import Chain


def test_the_bundle_repeats_the_logits_that_the_policy_was_fitted_on(chain: Chain) -> None:
    images = open_set(chain.paths["val_calib_set"], "VAL_CALIB")
    logits = Bundle.load(chain.paths["bundle"]).logits(images.image(i) for i in range(len(images)))
    assert np.allclose(logits, read_logits(chain.paths["val_calib_logits"]).values, atol=1e-4)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "scrcparams.json", "golden/golden.json"])
def test_an_altered_bundle_is_not_opened(chain: Chain, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(chain.paths["bundle"], tmp_path / "b"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ContractError, match="does not match the SHA-256 in its manifest"):
        Bundle.load(copy)


def test_a_runtime_that_computes_something_else_is_found_by_the_golden_images(chain: Chain, tmp_path: Path) -> None:
    golden = read_json(chain.paths["bundle"] + "/golden/golden.json")
    golden["logits"][2][0] += 0.5
    copy = changed_bundle(Path(chain.paths["bundle"]), tmp_path / "b", "golden/golden.json", logits=golden["logits"])
    with pytest.raises(BundleError, match="golden images give logits that differ by"):
        Bundle.load(copy)


def test_a_prediction_carries_its_set_when_the_policy_has_sets(chain: Chain, tmp_path: Path) -> None:
    image = Image.new("RGB", (50, 40))
    assert Bundle.load(chain.paths["bundle"]).predict([image])[0].classes is None
    sets = {"score": "lac", "threshold": 1.0}
    copy = changed_bundle(Path(chain.paths["bundle"]), tmp_path / "b", "scrcparams.json", sets=sets)
    (decision,) = Bundle.load(copy).predict([image])
    assert decision.classes == ["None", "Roadwork"]


def test_the_runtime_needs_neither_torch_nor_transformers(chain: Chain) -> None:
    code = (
        "import sys; from natix_lib.bundle.runtime import Bundle; from PIL import Image;"
        "b = Bundle.load(sys.argv[1]); b.check_golden(); print(b.predict([Image.new('RGB', (50, 40))])[0].label);"
        "assert not {'torch', 'transformers', 'kfp', 'sklearn'} & set(sys.modules), 'too much imported'"
    )
    done = subprocess.run([sys.executable, "-c", code, chain.paths["bundle"]], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in ("None", "Roadwork"), done.stderr
