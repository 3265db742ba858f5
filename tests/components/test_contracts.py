"""Components, steps, contracts and the pipeline say the same."""

import ast
import copy
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from natix_lib import config
from natix_lib.config.form import form, recalibration_form
from natix_lib.config.hardware import Hardware, Nodes
from natix_lib.config.step_settings import AdaptSettings, TrainSettings, step_settings
from natix_lib.contracts import ARTIFACTS, FINGERPRINTS, RECALIBRATION, RECALIBRATION_FINGERPRINTS, STEPS, TASKS
from natix_lib.steps import check
from natix_pipelines.targets import Target
from natix_pipelines.training import outputs_of

ROOT = Path(__file__).parent.parent.parent
DEFAULT = config.parse(
    config.Config, {"data": {"data_root": "x"}, "model": {"backbone_id": "a/b"}, "export": {"policy": "sweep"}}
)
SHOWN = {"metrics", "classification"}  # what only the pipelines UI reads
OWN = {  # what a component takes beside its settings and the artifacts of the contract
    "ingest": {"data_fingerprint"},
    "shard": {"data_fingerprint", "shard"},
    "split": {"previous_fingerprint", "shards"},
    "fetch": {"backbone_fingerprint", "token_secret"},
    "obtain": {"bundle_fingerprint"},
    "adapt": {"num_gpus", "nodes"},
    "train": {"num_gpus", "nodes"},
}
STEP_OPTIONS = {
    "ingest": ("data_fingerprint",),
    "shard": ("data_fingerprint", "shard"),
    "split": ("previous_fingerprint",),
    "fetch": ("backbone_fingerprint", "token_secret"),
    "obtain": ("bundle_fingerprint",),
    "evaluate": ("classification",),
}


def component(step: str) -> Any:
    return getattr(importlib.import_module(f"natix_components.{step}"), step).component_spec


@pytest.mark.parametrize("step", TASKS)
def test_a_component_takes_and_gives_what_the_contract_says(step: str) -> None:
    spec = component(step)
    assert spec.inputs["settings"].type == "Dict[String, Any]"
    assert {name for name in spec.inputs if name != "settings"} - set(TASKS[step].inputs) == OWN.get(step, set())
    assert set(TASKS[step].inputs) <= set(spec.inputs)
    assert set(spec.outputs) - SHOWN == set(TASKS[step].outputs) and "metrics" in spec.outputs


@pytest.mark.parametrize("step", TASKS)
def test_a_step_takes_its_artifacts_by_keyword_alone(step: str) -> None:
    run = importlib.import_module(f"natix_lib.steps.{step}").run
    settings, *others = inspect.signature(run).parameters.values()
    assert settings.name == "settings" and {one.kind for one in others} == {inspect.Parameter.KEYWORD_ONLY}
    assert {one.name for one in others} == {*TASKS[step].inputs, *TASKS[step].outputs, *STEP_OPTIONS.get(step, ())}


@pytest.mark.parametrize("step", TASKS)
def test_a_component_gives_every_artifact_to_the_argument_of_its_name(
    step: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The component's function is called with artifacts whose paths are their names."""
    monkeypatch.chdir(tmp_path)  # metrics are written where their artifact lies
    module = importlib.import_module(f"natix_lib.steps.{step}")
    calls: list[dict[str, Any]] = []
    signature = inspect.signature(module.run)

    def noted(*args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(signature.bind(*args, **kwargs).arguments)
        return {}

    monkeypatch.setattr(module, "run", noted)
    function = getattr(importlib.import_module(f"natix_components.{step}"), step).python_func
    names = [name for name in inspect.signature(function).parameters if name not in ("settings", "nodes")]
    artifacts: dict[str, Any] = {name: dsl.Artifact(uri=name) for name in names}
    for name, channel in component(step).inputs.items():
        if channel.is_artifact_list:
            artifacts[name] = [artifacts[name]]
    options = {name: name for name in OWN.get(step, ()) if name != "nodes"}
    nodes: dict[str, Any] = {"nodes": {}} if "nodes" in OWN.get(step, ()) else {}
    function(settings={"key": 1}, **{**artifacts, **options}, **nodes)
    (call,) = calls
    assert call.pop("settings")["key"] == 1
    given = {name: value.uri if isinstance(value, dsl.Artifact) else value for name, value in call.items()}
    given = {name: value[0] if isinstance(value, list) else value for name, value in given.items()}
    assert all(value == name for name, value in given.items()) and set(call) >= set(TASKS[step].inputs)


@pytest.mark.parametrize("step", TASKS)
def test_an_artifact_is_the_same_class_of_kfp_wherever_it_goes(step: str) -> None:
    spec = component(step)
    for name in TASKS[step].inputs:
        assert spec.inputs[name].type == f"system.{ARTIFACTS[name].type}@0.0.1"
    for name in TASKS[step].outputs:
        assert spec.outputs[name].type == f"system.{ARTIFACTS[name].type}@0.0.1"


@pytest.mark.parametrize("step", [*TASKS, "check", "check_recalibration"])
def test_the_body_of_a_component_is_imports_and_calls(step: str) -> None:
    tree = ast.parse((ROOT / "components" / f"{step}.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    body = [node for node in function.body[1:] if not isinstance(node, ast.ImportFrom)]
    assert all(isinstance(node, (ast.Expr, ast.Return)) for node in body)
    assert len(body) <= (2 if step == "evaluate" else 1)


@pytest.mark.parametrize("step", TASKS)
def test_a_gpu_step_names_the_gpu_image(step: str) -> None:
    image = component(step).implementation.container.image
    assert image.startswith("natix-gpu" if TASKS[step].gpu else "natix-cpu")


def test_nothing_is_installed_when_a_component_starts() -> None:
    for step in (*TASKS, "check", "check_recalibration"):
        assert "pip install" not in str(component(step).implementation.container.command)


def test_the_check_component_has_an_output_for_each_step_and_source_and_an_input_for_each_parameter_of_a_run() -> None:
    spec = component("check")
    assert list(spec.outputs) == [*STEPS, *FINGERPRINTS]
    assert set(spec.inputs) == set(form(DEFAULT)) | {"compiled", "run", "token_secret"}


def test_the_check_of_a_recalibration_has_an_output_for_each_step_and_source_and_an_input_for_each_parameter() -> None:
    spec = component("check_recalibration")
    assert list(spec.outputs) == [*RECALIBRATION, *RECALIBRATION_FINGERPRINTS]
    assert set(spec.inputs) == set(recalibration_form(DEFAULT)) | {"compiled", "rest", "run"}


def test_a_step_of_recalibration_takes_only_what_steps_before_it_make() -> None:
    made: set[str] = set()
    for step in RECALIBRATION:
        assert set(TASKS[step].inputs) <= made, step
        made |= set(TASKS[step].outputs)


def test_a_step_that_reads_a_source_takes_what_check_tells_of_it() -> None:
    assert {name: step.fingerprint for name, step in TASKS.items() if step.fingerprint} == {
        "ingest": "data_fingerprint",
        "shard": "data_fingerprint",
        "split": "previous_fingerprint",
        "fetch": "backbone_fingerprint",
        "obtain": "bundle_fingerprint",
    }


@pytest.mark.parametrize("step", [*TASKS, "check", "check_recalibration"])
def test_everything_that_a_component_takes_and_gives_is_described(step: str) -> None:
    spec = component(step)
    assert spec.description and all(one.description for one in (*spec.inputs.values(), *spec.outputs.values()))


def test_a_title_in_the_pipelines_ui_begins_with_the_name_of_its_step() -> None:
    assert all(contract.title.lower().split()[0] == name for name, contract in TASKS.items())


def test_the_pipeline_gives_every_artifact_of_the_contract() -> None:
    every = {artifact for step in STEPS.values() for artifact in step.outputs}
    assert set(outputs_of(True)._fields) == every
    assert set(outputs_of(False)._fields) == every - set(STEPS["adapt"].outputs)
    assert set(outputs_of(True, 2)._fields) == every - {"images"}  # which each shard has


def test_checked_settings_survive_kfps_floats_and_leave_out_null(tmp_path: Path) -> None:
    compiled = {**form(DEFAULT), "data_root": str(tmp_path), "backbone_id": str(tmp_path)}
    parameters = copy.deepcopy(compiled)
    parameters["data"]["dataloader"]["batch_size"] = 32.0
    parameters["model"]["image_size"] = 224.0
    checked = check.run({**parameters, "epochs": 7.0, "seed": "3"}, compiled)
    settings: dict[str, Any] = dict(zip([*STEPS, *FINGERPRINTS], checked, strict=True))
    assert settings["train"]["training"]["epochs"] == 7 and isinstance(settings["split"]["split"]["seed"], int)
    assert settings["train"]["dataloader"]["batch_size"] == 32
    assert isinstance(settings["train"]["model"]["image_size"], int)
    assert "None" not in str(settings)


@pytest.mark.parametrize(("step", "section"), [("adapt", AdaptSettings), ("train", TrainSettings)])
def test_gpus_as_text_and_nodes_with_kfps_floats_are_what_the_gpu_steps_read(step: str, section: Any) -> None:
    settings = step_settings(DEFAULT)[step]
    assert config.parse(section, {**settings, "num_gpus": "2", "nodes": {}}).nodes is None
    hardware = Hardware(num_nodes=2, num_gpus=8, shared_root="gs://bucket/nodes")
    nodes = Target("kubeflow", gpu_image="registry/gpu").nodes(hardware)
    parsed = config.parse(section, {**settings, "num_gpus": "2", "nodes": {**nodes, "num_nodes": 2.0}})
    assert parsed.num_gpus == 2 and parsed.nodes == config.parse(Nodes, nodes)
    assert parsed.nodes.num_nodes == 2 and isinstance(parsed.nodes.num_nodes, int)
