"""Components, steps, contracts and the pipeline say the same."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.config.hardware import Hardware, Nodes
from natix_lib.config.step_settings import AdaptSettings, TrainSettings, step_settings
from natix_lib.contracts import STEPS
from natix_lib.steps import check
from pipelines.targets import Target
from pipelines.training import outputs_of

ROOT = Path(__file__).parent.parent.parent
SHOWN = {"metrics", "classification"}  # what only the pipelines UI reads
FOR_THE_CACHE = {"data_version", "backbone_version"}  # what a component takes for KFP's cache key alone
OWN = {  # what a component takes beside its settings and the artifacts of the contract
    "ingest": {"data_version"},
    "fetch": {"backbone_version", "token_secret"},
    "adapt": {"num_gpus", "nodes"},
    "train": {"num_gpus", "nodes"},
}
STEP_OPTIONS = {"fetch": ("token_secret",)}


def component(step: str) -> Any:
    return getattr(importlib.import_module(f"components.{step}"), step).component_spec


@pytest.mark.parametrize("step", STEPS)
def test_a_component_takes_and_gives_what_the_contract_says(step: str) -> None:
    spec = component(step)
    assert spec.inputs["settings"].type == "Dict"
    assert {name for name in spec.inputs if name != "settings"} - set(STEPS[step].inputs) == OWN.get(step, set())
    assert set(STEPS[step].inputs) <= set(spec.inputs)
    assert set(spec.outputs) - SHOWN == set(STEPS[step].outputs) and "metrics" in spec.outputs


@pytest.mark.parametrize("step", STEPS)
def test_a_step_takes_settings_then_inputs_then_outputs(step: str) -> None:
    run = importlib.import_module(f"natix_lib.steps.{step}").run
    parameters = tuple(inspect.signature(run).parameters)
    assert parameters == ("settings", *STEPS[step].inputs, *STEPS[step].outputs, *STEP_OPTIONS.get(step, ()))


def disagreements(source: str, run: Callable[..., object]) -> list[str]:
    """How the call in a component's body differs from the step that it calls, and what of the component it leaves out.

    Every argument must be what the step's parameter is named after: `dataset.path` for `dataset`, and `settings` or
    `{**settings, ...}` for `settings`.
    """
    tree = ast.parse(source)
    (component,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    (call,) = (n for n in ast.walk(component) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith(".run"))
    texts = [ast.unparse(argument) for argument in call.args]
    named = {str(keyword.arg): ast.unparse(keyword.value) for keyword in call.keywords}
    try:
        bound = inspect.signature(run).bind(*texts, **named).arguments
    except TypeError as error:
        return [str(error)]
    found = [
        f"{name} gets {text}"
        for name, text in bound.items()
        if not (text in (name, f"{name}.path") or (name == "settings" and text.startswith("{**settings, ")))
    ]
    used = {node.id for statement in component.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    left_out = {argument.arg for argument in component.args.args} - used - FOR_THE_CACHE
    return found + [f"{name} is not used" for name in sorted(left_out)]


@pytest.mark.parametrize("step", STEPS)
def test_a_component_calls_its_step_with_every_artifact_in_its_place(step: str) -> None:
    source = (ROOT / "components" / f"{step}.py").read_text()
    assert disagreements(source, importlib.import_module(f"natix_lib.steps.{step}").run) == []


@pytest.mark.parametrize(
    ("takes", "call", "found"),
    [
        ("settings, dataset, splits, metrics", "settings, dataset.path, splits.path", []),
        ("settings, dataset, splits, metrics", "settings, dataset.path", ["missing a required argument: 'splits'"]),
        (
            "settings, dataset, splits, metrics",
            "settings, splits.path, dataset.path",
            ["dataset gets splits.path", "splits gets dataset.path"],
        ),
        (
            "settings, dataset, splits, metrics",
            "settings, dataset.path, splits.path, metrics.path",
            ["too many positional arguments"],
        ),
        ("settings, seed, dataset, splits, metrics", "settings, dataset.path, splits.path", ["seed is not used"]),
        (
            "settings, dataset, splits, metrics",
            "dict(), dataset.path, splits.path",
            ["settings gets dict()", "settings is not used"],
        ),
    ],
)
def test_a_component_that_disagrees_with_its_step_is_found(takes: str, call: str, found: list[str]) -> None:
    planted = f"def split({takes}):\n    record(metrics, split.run({call}))\n"
    assert disagreements(planted, importlib.import_module("natix_lib.steps.split").run) == found


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


@pytest.mark.parametrize(("step", "section"), [("adapt", AdaptSettings), ("train", TrainSettings)])
def test_gpus_as_text_and_nodes_with_kfps_floats_are_what_the_gpu_steps_read(step: str, section: type) -> None:
    settings = step_settings(
        config.parse(
            config.Config, {"data": {"data_root": "x"}, "model": {"backbone_id": "a/b"}, "export": {"policy": "sweep"}}
        )
    )[step]
    assert config.parse(section, {**settings, "num_gpus": "2", "nodes": {}}).nodes is None
    hardware = Hardware(num_nodes=2, num_gpus=8, shared_root="gs://bucket/nodes")
    nodes = Target("kubeflow", gpu_image="registry/gpu").nodes(hardware)
    found = config.parse(section, {**settings, "num_gpus": "2", "nodes": {**nodes, "num_nodes": 2.0}})
    assert found.num_gpus == 2 and found.nodes == config.parse(Nodes, nodes)
    assert found.nodes.num_nodes == 2 and isinstance(found.nodes.num_nodes, int)
