"""Components, steps, contracts and the pipeline say the same."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.contracts import STEPS
from natix_lib.steps import check
from pipelines.training import outputs_of

ROOT = Path(__file__).parent.parent.parent
SHOWN = {"metrics", "classification"}  # what only the pipelines UI reads


def component(step: str) -> Any:
    return getattr(importlib.import_module(f"components.{step}"), step).component_spec


@pytest.mark.parametrize("step", STEPS)
def test_a_component_takes_and_gives_what_the_contract_says(step: str) -> None:
    spec = component(step)
    inputs = {name for name in spec.inputs if name not in ("settings", "data_version", "backbone_version", "num_gpus")}
    assert inputs == set(STEPS[step].inputs) and spec.inputs["settings"].type == "Dict"
    assert set(spec.outputs) - SHOWN == set(STEPS[step].outputs) and "metrics" in spec.outputs


@pytest.mark.parametrize("step", STEPS)
def test_a_step_takes_settings_then_inputs_then_outputs(step: str) -> None:
    run = importlib.import_module(f"natix_lib.steps.{step}").run
    assert tuple(inspect.signature(run).parameters) == ("settings", *STEPS[step].inputs, *STEPS[step].outputs)


@pytest.mark.parametrize("step", [*STEPS, "check"])
def test_the_body_of_a_component_is_imports_and_calls(step: str) -> None:
    tree = ast.parse((ROOT / "components" / f"{step}.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    body = [node for node in function.body[1:] if not isinstance(node, ast.ImportFrom)]
    assert all(isinstance(node, (ast.Expr, ast.Return)) for node in body)
    assert len(body) <= (2 if step == "evaluate" else 1)


@pytest.mark.parametrize("step", STEPS)
def test_a_gpu_step_names_the_gpu_image(step: str) -> None:
    image = component(step).implementation.container.image
    assert image.startswith("natix-gpu" if STEPS[step].gpu else "natix-cpu")


def test_nothing_is_installed_when_a_component_starts() -> None:
    for step in (*STEPS, "check"):
        assert "pip install" not in str(component(step).implementation.container.command)


def test_the_check_component_has_an_output_for_each_step_and_an_input_for_each_section() -> None:
    spec = component("check")
    assert list(spec.outputs) == list(STEPS)
    assert set(spec.inputs) == set(config.SECTIONS) - {"hardware"} | {"with_explora"}


def test_the_pipeline_gives_every_artifact_of_the_contract() -> None:
    every = {artifact for step in STEPS.values() for artifact in step.outputs}
    assert set(outputs_of(True)._fields) == every
    assert set(outputs_of(False)._fields) == every - set(STEPS["adapt"].outputs)


def test_checked_settings_survive_kfps_floats_and_leave_out_null() -> None:
    sections = {
        "data": {"data_root": "x", "dataloader": {"batch_size": 32.0}},
        "model": {"backbone_id": "a/b", "image_size": 224.0},
        "export": {"policy": "sweep"},
    }
    settings = dict(zip(STEPS, check.run(sections, False), strict=True))
    assert settings["train"]["dataloader"]["batch_size"] == 32
    assert isinstance(settings["train"]["model"]["image_size"], int)
    assert "None" not in str(settings)
