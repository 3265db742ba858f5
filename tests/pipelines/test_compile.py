import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.protobuf import json_format
from kfp import components, dsl
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from natix_lib import config
from natix_lib.config import Hardware
from natix_lib.contracts import STEPS
from natix_lib.errors import ConfigError
from pipelines.compile import compiled
from pipelines.targets import Target, local_target
from pipelines.training import pipeline_name

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
DEFAULT = config.load(ROOT / "pipelines" / "configs" / "default.yaml")


VARIANTS = [(name, explora) for name in ("kubeflow", "vertex") for explora in (False, True)]


def golden(name: str, with_explora: bool = True) -> Path:
    return GOLDEN / name / f"{pipeline_name(with_explora)}.yaml"


def documents(name: str, with_explora: bool = True) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(golden(name, with_explora).read_text()))


def compile_command(config_file: Path, output: Path) -> list[str]:
    images = ["--image-cpu", "natix-cpu:latest", "--image-gpu", "natix-gpu:latest"]
    return [sys.executable, "-m", "pipelines.compile", "--config", str(config_file), *images, "--output", str(output)]


def executor_config(values: dict[str, Any]) -> Any:
    return json_format.ParseDict(values, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_the_golden_file_is_what_compiling_gives(name: str, with_explora: bool) -> None:
    assert compiled(Target(name), DEFAULT, with_explora) == golden(name, with_explora).read_text(), "run `make compile`"


def test_compiling_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    done = subprocess.run(
        compile_command(Path("pipelines/configs/default.yaml"), tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 4
    for name, with_explora in VARIANTS:
        file = golden(name, with_explora)
        assert (tmp_path / name / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("name", "with_explora"), VARIANTS)
def test_the_specification_parses_strictly_and_loads(name: str, with_explora: bool) -> None:
    spec = documents(name, with_explora)[0]
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    assert parsed.pipeline_info.name == f"natix-{pipeline_name(with_explora)}"
    loaded = components.load_component_from_file(str(golden(name, with_explora)))
    assert set(loaded.component_spec.inputs) == set(config.SECTIONS) - {"hardware"} | {
        "data_version",
        "backbone_version",
        "num_gpus",
    }


def test_train_takes_what_adapt_gives_in_one_variant_and_what_fetch_gives_in_the_other() -> None:
    for with_explora, producer in ((False, "fetch"), (True, "adapt")):
        tasks = documents("kubeflow", with_explora)[0]["root"]["dag"]["tasks"]
        source = tasks["train"]["inputs"]["artifacts"]["backbone"]["taskOutputArtifact"]["producerTask"]
        assert source == producer and ("adapt" in tasks) == with_explora
        constant = tasks["check"]["inputs"]["parameters"]["with_explora"]["runtimeValue"]["constant"]
        assert constant is with_explora


def test_every_executor_of_the_platform_document_parses_strictly() -> None:
    executors = documents("kubeflow")[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    parsed = {name: executor_config(values) for name, values in executors.items()}
    assert parsed["exec-train"].node_selector.labels["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    assert parsed["exec-fetch"].secret_as_env[0].secret_name == "hf-token"
    typo = {"nodeSelectr": executors["exec-train"]["nodeSelector"]}
    with pytest.raises(json_format.ParseError, match="nodeSelectr"):
        executor_config(typo)


def test_gpu_steps_alone_ask_for_gpus() -> None:
    for name, kind in (("kubeflow", "nvidia.com/gpu"), ("vertex", "NVIDIA_L4")):
        executors = documents(name)[0]["deploymentSpec"]["executors"]
        for step in STEPS:
            resources = executors[f"exec-{step}"]["container"]["resources"]
            assert ("accelerator" in resources) == STEPS[step].gpu
            if STEPS[step].gpu:
                assert resources["accelerator"]["resourceType"] == kind
                assert "num_gpus" in resources["accelerator"]["resourceCount"]


def test_only_fetch_sees_the_token_and_no_secret_is_in_the_file() -> None:
    executors = documents("kubeflow")[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [name for name, values in executors.items() if "secretAsEnv" in values] == ["exec-fetch"]
    for name in ("kubeflow", "vertex"):
        text = golden(name).read_text()
        assert "hf_" not in text.replace("hf_token", "") and "BEGIN" not in text


@pytest.mark.parametrize("with_explora", [False, True])
def test_the_vertex_file_is_one_document_and_makes_a_pipeline_job(with_explora: bool) -> None:
    from google.cloud import aiplatform

    assert len(documents("vertex", with_explora)) == 1
    job = aiplatform.PipelineJob(
        display_name="natix",
        template_path=str(golden("vertex", with_explora)),
        pipeline_root="gs://bucket/root",
        parameter_values={"num_gpus": "1", "data_version": "v2"},
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


def test_a_gpu_count_that_is_a_number_is_refused() -> None:
    from components.train import train

    @dsl.pipeline
    def with_number(num_gpus: int = 1) -> None:
        task = train(
            settings={},
            dataset=dsl.importer(artifact_uri="gs://a/b", artifact_class=dsl.Dataset).output,
            splits=dsl.importer(artifact_uri="gs://a/b", artifact_class=dsl.Artifact).output,
            backbone=dsl.importer(artifact_uri="gs://a/b", artifact_class=dsl.Model).output,
        )
        with pytest.raises(ConfigError, match="num_gpus must be a text parameter, a number would give no GPU"):
            Target("kubeflow").place(task, "train", Hardware(), num_gpus)
        with pytest.raises(ConfigError, match="got int"):
            Target("kubeflow").place(task, "train", Hardware(), 1)


def test_an_accelerator_that_vertex_does_not_know_is_refused() -> None:
    settings = config.load(ROOT / "pipelines" / "configs" / "default.yaml", ["hardware.accelerator=tpu"])
    with pytest.raises(ConfigError, match="hardware.accelerator for vertex must be one of nvidia-l4.*got tpu"):
        compiled(Target("vertex"), settings, False)
    with pytest.raises(ConfigError, match="target must be kubeflow, vertex or local, got 'moon'"):
        Target("moon")


def test_no_gpu_is_asked_for_when_the_config_wants_none() -> None:
    settings = config.load(ROOT / "pipelines" / "configs" / "default.yaml", ["hardware.num_gpus=0"])
    assert "accelerator" not in compiled(Target("kubeflow"), settings, True).replace("hardware.accelerator", "")


def test_the_images_of_a_target_reach_every_task() -> None:
    text = compiled(Target("kubeflow", "registry/cpu@sha256:1", "registry/gpu@sha256:2"), DEFAULT, True)
    assert text.count("image: registry/cpu@sha256:1") == 8 and text.count("image: registry/gpu@sha256:2") == 2


def test_the_local_image_is_named_by_the_code() -> None:
    image = local_target().cpu_image
    assert image.startswith("natix-local-python:") and len(image.split(":")[1]) == 16


def test_a_config_with_mistakes_stops_compiling_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("data: {data_rot: x}\n")
    done = subprocess.run(compile_command(tmp_path / "bad.yaml", tmp_path), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: config: 4 mistakes: ")
    assert len(done.stderr.splitlines()) == 1
