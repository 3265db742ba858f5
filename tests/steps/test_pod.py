"""The log of a step in its pod: KFP's executor is started as the compiled file says, in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from natix_lib import __version__
from natix_lib.contracts import STEPS
from natix_lib.errors import DataError
from natix_lib.steps import pod

ROOT = Path(__file__).parents[2]
COMPILED = next(
    yaml.safe_load_all((ROOT / "tests/pipelines/golden/kubeflow/training-explora.yaml").read_text(encoding="utf-8"))
)
SOME = {"STRING": "", "STRUCT": {"nonsense": 1}, "NUMBER_DOUBLE": 0.5, "NUMBER_INTEGER": 1, "BOOLEAN": False}
BODIES = """
from kfp.dsl import Metrics, Output


def broken():
    import multiprocessing
    from natix_lib.steps import check
    child = multiprocessing.get_context("spawn").Process(target=print, args=("of the child",))
    child.start()
    child.join()
    print("before the end")
    raise {error}


def fine(metrics: Output[Metrics]):
    from pathlib import Path
    from natix_lib.steps.shown import show_metrics
    (Path(metrics.path).parent / "images").mkdir(parents=True)
    (Path(metrics.path).parent / "images" / "one").write_bytes(bytes(5000))
    show_metrics(metrics, {{"images": 1}})
"""


def execute(component: str, folder: Path) -> tuple[int, list[str]]:
    """Exit code and log of a task that is given what no step takes."""
    spec = COMPILED["components"][f"comp-{component}"]
    container = COMPILED["deploymentSpec"]["executors"][f"exec-{component}"]["container"]
    inputs, outputs = spec.get("inputDefinitions", {}), spec.get("outputDefinitions", {})
    values = {name: SOME[kind["parameterType"]] for name, kind in inputs.get("parameters", {}).items()}
    executor_input = {
        "inputs": {
            "parameterValues": values,
            "artifacts": {name: of(name, folder / "absent" / name) for name in inputs.get("artifacts", {})},
        },
        "outputs": {
            "artifacts": {name: of(name, folder / "out" / name) for name in outputs.get("artifacts", {})},
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    words = [word.replace("{{$}}", json.dumps(executor_input)) for word in container["command"] + container["args"]]
    return run(folder, words)


def of(name: str, path: Path) -> dict[str, Any]:
    return {"artifacts": [{"name": name, "uri": str(path), "type": {"schemaTitle": "system.Artifact"}}]}


def run(folder: Path, words: list[str]) -> tuple[int, list[str]]:
    environment = {
        **os.environ,
        "NODE_NAME": "node-of-this-pod",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, cwd=folder
    )
    return done.returncode, done.stdout.splitlines()


def execute_body(function: str, folder: Path, error: str = "", **outputs: Path) -> tuple[int, list[str]]:
    """Exit code and log of a function of BODIES."""
    (folder / "body.py").write_text(BODIES.format(error=error))
    artifacts = {name: of(name, path) for name, path in outputs.items()}
    given = {"inputs": {}, "outputs": {"artifacts": artifacts, "outputFile": str(folder / "out.json")}}
    words = [sys.executable, "-m", pod.EXECUTOR, "--component_module_path", str(folder / "body.py")]
    return run(folder, [*words, "--executor_input", json.dumps(given), pod.FUNCTION, function])


@pytest.mark.parametrize("component", ["check", *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS)])
def test_an_error_of_ours_is_the_one_and_last_line_of_a_step(component: str, tmp_path: Path) -> None:
    code, log = execute(component, tmp_path)
    assert code == 1 and log[-1].startswith("error: ") and "nonsense" in log[-1], log[-20:]
    assert [line for line in log if line.startswith("error: ")] == log[-1:] and "Traceback" not in "\n".join(log)
    first = log.index(f"natix {__version__}, step {component}, node node-of-this-pod, pod {os.uname().nodename}")
    assert log[first + 1].startswith("may use ") and log[first + 1].endswith(("GPU", "GPUs"))


def test_the_last_line_says_what_was_written_how_long_and_how_much_memory(tmp_path: Path) -> None:
    code, log = execute_body("fine", tmp_path, metrics=tmp_path / "out" / "metrics")
    assert code == 0 and re.fullmatch(r"written: 2 files, 5\.0 kB, in [\d.]+ s, peak memory [\d.]+ [MG]B", log[-1]), log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "last"),
    [("ValueError('3 is no matrix')", "ValueError: 3 is no matrix"), ("SystemExit(3)", "before the end")],
)
def test_what_is_unexpected_keeps_its_traceback_and_its_exit_code(tmp_path: Path, error: str, last: str) -> None:
    code, log = execute_body("broken", tmp_path, error)
    assert log[-1] == last and code == (3 if "Exit" in error else 1), log
    assert ("Traceback (most recent call last):" in log) == ("Value" in error)
    assert len([line for line in log if line.startswith("natix ")]) == 1 and "of the child" in log


def test_only_an_error_of_ours_loses_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for error, shown in ((DataError("no image"), "error: no image\n"), (ValueError("3"), "ValueError: 3\n")):
        pod._fail(type(error), error, None)
        assert capsys.readouterr().err == shown


def test_who_calls_a_step_from_python_gets_its_error_as_ever() -> None:
    assert sys.excepthook is not pod._fail and not pod._begun
