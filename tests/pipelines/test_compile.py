import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.protobuf import json_format
from kfp import compiler, components, dsl
from kfp.pipeline_spec import pipeline_spec_pb2

from natix_lib import config
from natix_lib.config.form import FORM, form
from natix_lib.contracts import SETS, TASKS
from natix_pipelines.compile import compiled, compiled_component, compiled_recalibration, main
from natix_pipelines.targets import Target
from natix_pipelines.training import file_stem
from tests.short_stack import on_a_short_stack

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
CONFIG = ROOT / "pipelines" / "configs" / "default.yaml"
DEFAULT = config.load(CONFIG)
beside_the_files = pytest.mark.xdist_group("compiled")  # in one process, so that they are made once
TOKEN = "hf_tokentokentoken"
DIGEST = "sha256:" + "0123456789abcdef" * 4

VARIANTS = [(name, explora) for name in ("kubeflow", "vertex") for explora in (False, True)]


def golden(name: str, with_explora: bool = True) -> Path:
    return GOLDEN / name / f"{file_stem(with_explora)}.yaml"


def documents(name: str, with_explora: bool = True) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(golden(name, with_explora).read_text()))


def arguments(
    output: Path,
    *options: str,
    config_file: Path = CONFIG,
    cpu: str = "natix-cpu:latest",
    gpu: str = "natix-gpu:latest",
) -> list[str]:
    files = ["--config", str(config_file), "--output", str(output)]
    return [*files, "--image-cpu", cpu, "--image-gpu", gpu, *options]


@pytest.fixture
def compile_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """Runs the command in this process, which has imported KFP already; gives its exit code."""

    def run(command: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["compile", *command])
        try:
            on_a_short_stack(main)
        except SystemExit as end:
            assert isinstance(end.code, int)
            return end.code
        return 0

    return run


@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_the_golden_file_is_what_compiling_gives(name: str, with_explora: bool) -> None:
    text = on_a_short_stack(compiled, Target(name), DEFAULT, with_explora)
    assert text == golden(name, with_explora).read_text(), "run `make compile`"


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_the_golden_file_of_recalibration_is_what_compiling_gives_and_asks_for_no_gpu(target: str) -> None:
    text = on_a_short_stack(compiled_recalibration, Target(target), DEFAULT)
    assert text == (GOLDEN / target / "recalibration.yaml").read_text(), "run `make compile`"
    assert "accelerator" not in text and "natix-gpu" not in text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another process has compiled, components too, with a token in its environment."""
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "natix_pipelines.compile"]
    command += arguments(folder, "--components", str(folder / "components"))
    environment = {**os.environ, "HF_TOKEN": TOKEN}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    # a recalibration for each of two targets, and the two components that check
    assert len(done.stdout.splitlines()) == len(VARIANTS) + 2 + 2 * len(TASKS) + 2
    return folder


@pytest.mark.slow
@beside_the_files
def test_compiling_gives_the_same_bytes_in_every_process(made: Path) -> None:
    other = {path.relative_to(made): path.read_text() for path in made.rglob("*.yaml")}
    assert len(other) == len(VARIANTS) + 2 + len(TASKS) + 2
    for name, with_explora in VARIANTS:
        file = golden(name, with_explora)
        assert other[file.relative_to(GOLDEN)] == file.read_text()
    for step in ("check", *TASKS):
        here = on_a_short_stack(compiled_component, Target("kubeflow"), step)
        assert other[Path("components") / f"{step}.yaml"] == here


@pytest.mark.slow
@beside_the_files
def test_no_secret_of_the_environment_is_in_what_is_compiled(made: Path) -> None:
    text = "".join(path.read_text() for path in made.rglob("*.yaml"))
    assert "HF_TOKEN" in text and TOKEN not in text and "BEGIN" not in text


@pytest.mark.slow
@beside_the_files
@pytest.mark.parametrize("step", ["check", *TASKS])
def test_each_component_is_a_file_that_loads_with_its_image(made: Path, step: str) -> None:
    path = made / "components" / f"{step}.yaml"
    loaded = components.load_component_from_file(str(path))
    original = getattr(importlib.import_module(f"natix_components.{step}"), step).component_spec
    assert set(loaded.component_spec.inputs) == set(original.inputs)
    assert set(loaded.component_spec.outputs) == set(original.outputs)
    (executor,) = yaml.safe_load(path.read_text())["deploymentSpec"]["executors"].values()
    gpu = step in TASKS and TASKS[step].gpu
    assert executor["container"]["image"] == f"natix-{'gpu' if gpu else 'cpu'}:latest"


@pytest.mark.slow
@beside_the_files
def test_a_component_file_is_a_task_of_another_pipeline(made: Path, tmp_path: Path) -> None:
    ingest = components.load_component_from_file(str(made / "components" / "ingest.yaml"))

    @dsl.pipeline
    def another() -> None:
        ingest(settings={"data": {"data_root": "x"}}, data_fingerprint="")

    compiler.Compiler().compile(another, str(tmp_path / "another.yaml"))
    assert "image: natix-cpu:latest" in (tmp_path / "another.yaml").read_text()


def test_a_component_carries_the_image_of_a_target_and_leaves_the_original_alone() -> None:
    assert "image: registry/gpu@sha256:" + "1" * 64 in compiled_component(
        Target("vertex", "cpu", "registry/gpu@sha256:" + "1" * 64), "adapt"
    )
    assert "image: natix-gpu:latest" in compiled_component(Target("vertex"), "adapt")


@pytest.mark.parametrize(
    ("cpu", "gpu", "refused"),
    [
        (f"registry/cpu@{DIGEST}", "registry/gpu:v1", "--image-gpu registry/gpu:v1"),
        ("cpu", f"gpu@{DIGEST[:-1]}", f"--image-cpu cpu, --image-gpu gpu@{DIGEST[:-1]}"),
        (f"cpu:v1@{DIGEST}x", f"gpu@{DIGEST}", f"--image-cpu cpu:v1@{DIGEST}x"),
    ],
)
def test_a_release_needs_digests(
    tmp_path: Path,
    compile_here: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
    cpu: str,
    gpu: str,
    refused: str,
) -> None:
    assert compile_here(arguments(tmp_path, "--release", cpu=cpu, gpu=gpu)) == 2 and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == (
        "error: a release needs images named by their digest, NAME@sha256:<64 hex digits>, because KFP's cache would "
        f"serve what an older image under the same tag has made: got {refused}\n"
    )


def test_a_release_with_digests_compiles(tmp_path: Path, compile_here: Callable[[list[str]], int]) -> None:
    release = arguments(tmp_path, "--release", "--target", "vertex", cpu=f"cpu@{DIGEST}", gpu=f"gpu:v1@{DIGEST}")
    assert compile_here(release) == 0
    assert f"image: gpu:v1@{DIGEST}" in (tmp_path / "vertex" / "training.yaml").read_text()
    assert not (tmp_path / "kubeflow").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_the_specification_parses_strictly_and_loads(name: str, with_explora: bool) -> None:
    spec = documents(name, with_explora)[0]
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    assert parsed.pipeline_info.name == "natix-training"
    loaded = components.load_component_from_file(str(golden(name, with_explora)))
    assert set(loaded.component_spec.inputs) == set(form(DEFAULT))


TYPES = {
    **dict.fromkeys(
        (
            "data_root",
            "backbone_id",
            "policy",
            "num_gpus",
            "seed",
        ),
        "STRING",
    ),
    **dict.fromkeys(("alpha", "delta", "lr"), "NUMBER_DOUBLE"),
    "epochs": "NUMBER_INTEGER",
    **dict.fromkeys(set(config.SECTIONS) - {"recalibrate", "hardware"}, "STRUCT"),
}


@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_the_form_of_a_run_shows_every_value_with_its_type_and_a_text(name: str, with_explora: bool) -> None:
    parameters = documents(name, with_explora)[0]["root"]["inputDefinitions"]["parameters"]
    assert {parameter: shown["parameterType"] for parameter, shown in parameters.items()} == TYPES
    for parameter, shown in parameters.items():
        assert shown["isOptional"] and shown["defaultValue"], parameter  # 0 and "" disable Start in older frontends
        assert len(shown["description"]) > 20 and shown["description"].endswith("."), parameter
    assert {parameter: parameters[parameter]["defaultValue"] for parameter in FORM} == {
        "data_root": DEFAULT.data.data_root, "backbone_id": DEFAULT.model.backbone_id, "policy": "calibrate",
        "alpha": 0.05, "delta": 0.1, "epochs": 50, "lr": 0.001, "num_gpus": "1", "seed": "0",
    }  # fmt: skip
    assert parameters["alpha"]["description"] == (
        "Bound on the error rate of accepted images. Number > 0 and < 1. Config: scrc.alpha."
    )


@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_everything_compiled_has_a_text_and_every_task_a_title(name: str, with_explora: bool) -> None:
    spec = documents(name, with_explora)[0]
    assert spec["pipelineInfo"]["displayName"] and spec["pipelineInfo"]["description"]
    for component in spec["components"].values():
        for given in ("inputDefinitions", "outputDefinitions"):
            for channels in component.get(given, {}).values():
                assert all(channel["description"] for channel in channels.values())
    for step, task in spec["root"]["dag"]["tasks"].items():
        assert task["taskInfo"]["name"].lower().startswith(f"{step} the ") or step in ("calibrate", "evaluate")
        assert " " in task["taskInfo"]["name"]


def test_train_takes_what_adapt_gives_in_one_variant_and_what_fetch_gives_in_the_other() -> None:
    for with_explora, producer in ((False, "fetch"), (True, "adapt")):
        tasks = documents("kubeflow", with_explora)[0]["root"]["dag"]["tasks"]
        source = tasks["train"]["inputs"]["artifacts"]["backbone"]["taskOutputArtifact"]["producerTask"]
        assert source == producer and ("adapt" in tasks) == with_explora
        constant = tasks["check"]["inputs"]["parameters"]["compiled"]["runtimeValue"]["constant"]
        assert constant["model"]["init_from_explora"] is with_explora


def reached(spec: dict[str, Any]) -> dict[str, set[str]]:
    """Each set of images, all of them included, to the tasks that are given it, by whatever name they take it."""
    tasks = spec["root"]["dag"]["tasks"]
    takers: dict[str, set[str]] = {name: set() for name in (*SETS.values(), "images", "index")}
    for name, task in tasks.items():
        for source in task["inputs"].get("artifacts", {}).values():
            if (given := source["taskOutputArtifact"]["outputArtifactKey"]) in takers:
                takers[given].add(name)
    return takers


MAY_REACH = {
    "images": {"split"},
    "index": {"split"},
    "train_set": {"adapt", "train"},
    "val_select_set": {"train"},
    "val_calib_set": {"train", "export"},
    "test_set": {"evaluate"},
    "unlabelled_set": {"adapt"},
}


@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_no_task_but_evaluate_can_reach_test_and_none_reaches_more_than_it_may(name: str, with_explora: bool) -> None:
    spec = documents(name, with_explora)[0]
    tasks = set(spec["root"]["dag"]["tasks"])
    assert reached(spec) == {given: takers & tasks for given, takers in MAY_REACH.items()}
    assert set(spec["root"].get("inputDefinitions", {})) == {"parameters"}  # no artifact comes from outside


def test_an_edge_from_test_to_train_is_seen() -> None:
    spec = documents("kubeflow")[0]
    artifacts = spec["root"]["dag"]["tasks"]["train"]["inputs"]["artifacts"]
    artifacts["train_set"] = {"taskOutputArtifact": {"outputArtifactKey": "test_set", "producerTask": "split"}}
    assert reached(spec)["test_set"] == {"evaluate", "train"}


@pytest.mark.slow
@pytest.mark.parametrize("with_explora", [False, True])
def test_the_vertex_file_is_one_document_and_makes_a_pipeline_job(with_explora: bool) -> None:
    from google.cloud import aiplatform

    assert len(documents("vertex", with_explora)) == 1
    job = aiplatform.PipelineJob(
        display_name="natix",
        template_path=str(golden("vertex", with_explora)),
        pipeline_root="gs://bucket/root",
        parameter_values={"num_gpus": "1", "scrc": {"on_infeasible": "fail"}},
        project="project",
        location="europe-west4",
        credentials=AnonymousCredentials(),
    )
    assert job is not None
    with pytest.raises(ValueError, match="not found in the pipeline job input definitions"):
        aiplatform.PipelineJob(
            display_name="natix",
            template_path=str(golden("vertex", with_explora)),
            pipeline_root="gs://bucket/root",
            parameter_values={"gpus": "1"},
            project="project",
            location="europe-west4",
            credentials=AnonymousCredentials(),
        )


def test_a_config_with_mistakes_stops_compiling_with_one_line(
    tmp_path: Path, compile_here: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("data: {data_rot: x}\n")
    assert compile_here(arguments(tmp_path, config_file=tmp_path / "bad.yaml")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: config: 4 mistakes: ")
