import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from natix_lib.bundle.session import open_session
from natix_lib.errors import BundleError

CPUS = len(os.sched_getaffinity(0))


COUNT = (
    "import os, sys\n"
    "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[2])])\n"
    "from natix_lib.cpus import cpu_threads; from pathlib import Path\n"
    "from natix_lib.bundle.session import open_session\n"
    "before = len(os.listdir('/proc/self/task'))\n"
    "session = open_session(Path(sys.argv[1]) / 'model.onnx', 32, 2)\n"
    "print(cpu_threads(), len(os.listdir('/proc/self/task')) - before + 1)"
)


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
@pytest.mark.parametrize(("allowed", "setting", "expected"), [(2, "", "2 2"), (1, "", "1 1"), (2, "1", "1 1")])
def test_a_session_starts_as_many_threads_as_it_may_use(
    tiny_bundle: Path, allowed: int, setting: str, expected: str
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": setting}
    arguments = [sys.executable, "-c", COUNT, str(tiny_bundle), str(allowed)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == expected, done.stderr


def model(path: Path, **changes: Any) -> Path:
    """A model that averages the pixels of each channel, with one thing changed."""
    ends = {"take": "pixel_values", "give": "logits", "n": "n", "side": 32, "classes": 3, "type": TensorProto.FLOAT}
    ends |= changes
    nodes = [helper.make_node("ReduceMean", [ends["take"]], [ends["give"]], axes=[2, 3], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "average",
        [helper.make_tensor_value_info(ends["take"], ends["type"], [ends["n"], 3, ends["side"], ends["side"]])],
        [helper.make_tensor_value_info(ends["give"], ends["type"], [ends["n"], ends["classes"]])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.save(made, path)
    return path


def test_a_model_of_the_right_ends_is_opened(tmp_path: Path) -> None:
    assert open_session(model(tmp_path / "m.onnx"), 32, 3).get_outputs()[0].name == "logits"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"take": "x"}, r"must take pixel_values, float of shape \['n', 3, 32, 32\], for any n; got \[\('x'"),
        ({"give": "y"}, r"must give logits, float of shape \['n', 3\], for any n; got \[\('y'"),
        ({"n": 4}, r"must take pixel_values, float of shape \['n', 3, 32, 32\], for any n; got .*\[4, 3, 32, 32\]"),
        ({"side": 16}, r"must take pixel_values, float of shape \['n', 3, 32, 32\].*16, 16"),
        ({"type": TensorProto.DOUBLE}, r"must take pixel_values, .*tensor\(double\)"),
    ],
)
def test_a_model_of_other_ends_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        open_session(model(tmp_path / "m.onnx", **changes), 32, 3)


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"must give logits, float of shape \['n', 2\].*\['n', 3\]"):
        open_session(model(tmp_path / "m.onnx"), 32, 2)


def with_weights_at(source: Path, target: Path, place: str) -> Path:
    """A copy of a model whose weights are said to lie somewhere else."""
    made = onnx.load(source, load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    onnx.save(made, target)
    return target


@pytest.mark.parametrize("place", ["../outside.data", "absolute", "linked.data", "nowhere.data"])
def test_weights_outside_the_folder_are_refused_in_one_line(
    tiny_bundle: Path, tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    outside = tmp_path / "outside.data"
    outside.write_bytes((tiny_bundle / "model.onnx.data").read_bytes())
    (tmp_path / "b" / "linked.data").symlink_to(outside)
    path = with_weights_at(
        tiny_bundle / "model.onnx", tmp_path / "b" / "m.onnx", str(outside) * (place == "absolute") or place
    )
    with pytest.raises(BundleError, match=r"m.onnx is no model that onnxruntime opens: "):
        open_session(path, 32, 2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"junk" * 100, None], ids=["empty", "junk", "truncated"])
def test_a_damaged_model_is_refused_in_one_line(
    tiny_bundle: Path, tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes((tiny_bundle / "model.onnx").read_bytes()[:9000] if content is None else content)
    with pytest.raises(BundleError, match=r"m.onnx is no model that onnxruntime opens: ") as refusal:
        open_session(tmp_path / "m.onnx", 32, 2)
    assert "\n" not in str(refusal.value) and capfd.readouterr().err == ""
