import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from natix_lib.bundle.session import cpu_threads, open_session
from natix_lib.errors import BundleError, ConfigError

CPUS = len(os.sched_getaffinity(0))


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def threads(folder: Path, place: str, environment: dict[str, str] | None = None) -> int:
    (folder / "process").write_text(place)
    return cpu_threads(environment or {}, folder / "process", folder)


@pytest.mark.parametrize(
    ("files", "place", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),  # half a CPU is still one thread
        ({"cpu.max": "max 100000\n"}, "0::/\n", CPUS),
        ({"cpu.max": "99900000 100000\n"}, "0::/\n", CPUS),  # more than there are
        ({"pod/cpu.max": "100000 100000\n", "pod/one/cpu.max": "max 100000\n"}, "0::/pod/one\n", 1),  # of the pod
        ({"other/cpu.max": "100000 100000\n"}, "0::/pod/one\n", CPUS),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/docker/x\n", 1),
        ({"cpu/p/cpu.cfs_quota_us": "1000\n", "cpu/p/cpu.cfs_period_us": "1000\n"}, "2:memory:/q\n1:cpu:/p\n", 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", CPUS),
        ({}, "", CPUS),
    ],
)
def test_threads_follow_the_cpu_limit_of_the_container(
    tmp_path: Path, files: dict[str, str], place: str, expected: int
) -> None:
    assert threads(tree(tmp_path, files), place) == expected


def test_a_quota_of_one_and_a_half_cpus_is_two_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert threads(tree(tmp_path, {"cpu.max": "150000 100000"}), "0::/") == 2
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": "12"}) == 12
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": " 3,2 "}) == 3
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": "500"}) == 64
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": ""}) == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²", "9" * 30])
def test_a_setting_that_is_no_number_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS must be a whole number from 1, got "):
        threads(tmp_path, "0::/", {"OMP_NUM_THREADS": text})


COUNT = (
    "import os, sys\n"
    "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[2])])\n"
    "from natix_lib.bundle.session import cpu_threads, open_session; from pathlib import Path\n"
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
