"""What the targets put into the compiled YAML: resources, node pools, retries, timeouts, caching, secrets, nodes."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl
from kfp.kubernetes import kubernetes_executor_config_pb2

from natix_lib import config
from natix_lib.config import Hardware
from natix_lib.config.hardware import Nodes
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import FINGERPRINTS, STEPS
from natix_lib.errors import ConfigError
from natix_pipelines.compile import compiled
from natix_pipelines.targets import Target, code_sha256, local_target
from tests.short_stack import on_a_short_stack

GPU_STEPS = {step for step in STEPS if STEPS[step].gpu}
CPU_STEPS = {"check", *STEPS} - GPU_STEPS
LABEL = "cloud.google.com/gke-accelerator"
RICH: dict[str, Any] = {  # every option away from its default, on one node
    "num_gpus": 4,
    "accelerator": "nvidia-h100-80gb",
    "cpu": "2",
    "memory": "9Gi",
    "gpu_cpu": "30",
    "gpu_memory": "200Gi",
    "shared_memory": "64Gi",
    "node_selector": {"pool": "cpu", "disk": "ssd"},
    "tolerations": [{"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoExecute"}],
    "gpu_node_selector": {"pool": "gpu"},
    "gpu_tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {}],
    "retries": 3,
    "retry_wait_seconds": 20,
    "timeout_hours": 0.5,
    "gpu_timeout_hours": 10,
    "uncached_steps": ["ingest", "evaluate"],
    "pull_policy": "Always",
    "hf_token_secret": "hub",
    "shared_root": "gs://bucket/nodes",
    "training_runtime": "torch-of-ours",
    "service_account": "trainer",
}


ELSEWHERE: dict[str, Any] = {  # what a cluster of other people asks for
    "volumes": [
        {"claim": "images", "path": "/data", "read_only": True, "steps": ["check", "ingest"]},
        {"claim": "work", "path": "/shared", "steps": ["adapt", "train", "export"]},
    ],
    "store_secret": "mlpipeline-minio-artifact",
    "store_endpoint": "http://seaweedfs.kubeflow.svc:8333",
    "pull_secrets": ["registry", "mirror"],
    "labels": {"kueue.x-k8s.io/queue-name": "street"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "restricted": True,
    "shared_root": "/shared/nodes",
}
HARDWARE = {
    "rich": RICH,
    "nodes": {**RICH, "num_nodes": 2},
    "elsewhere": ELSEWHERE,
    "bare": {"num_gpus": 0, "retries": 0, "hf_token_secret": ""},
    "default": {},
}


def settings(hardware: dict[str, Any]) -> config.Config:
    return config.parse(
        config.Config,
        {
            "data": {"data_root": "gs://bucket/images"},
            "model": {"backbone_id": "owner/vit"},
            "export": {"policy": "sweep"},
            "hardware": hardware,
        },
    )


class Compiled:
    """A compiled pipeline, by step."""

    def __init__(self, target: str, hardware: dict[str, Any]) -> None:
        self.text = on_a_short_stack(compiled, Target(target, "registry/cpu", "registry/gpu"), settings(hardware), True)
        self.documents = list(yaml.safe_load_all(self.text))
        self.tasks = self.documents[0]["root"]["dag"]["tasks"]
        containers = self.documents[0]["deploymentSpec"]["executors"]
        self.containers = {name.removeprefix("exec-"): value["container"] for name, value in containers.items()}
        self.resources = {step: container["resources"] for step, container in self.containers.items()}

    @property
    def kubernetes(self) -> dict[str, Any]:
        executors = self.documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        return {name.removeprefix("exec-"): value for name, value in executors.items()}

    def constant(self, step: str, name: str) -> Any:
        return self.tasks[step]["inputs"]["parameters"][name]["runtimeValue"]["constant"]


@cache
def compiled_once(target: str, hardware: str) -> Compiled:
    """Compiled once: tests only read it."""
    return Compiled(target, HARDWARE[hardware])


@pytest.fixture
def rich() -> Compiled:
    return compiled_once("kubeflow", "rich")


@pytest.fixture
def nodes() -> Compiled:
    return compiled_once("kubeflow", "nodes")


@pytest.mark.parametrize("hardware", HARDWARE)
def test_every_executor_of_the_platform_document_parses_strictly(hardware: str) -> None:
    executors = compiled_once("kubeflow", hardware).kubernetes
    assert set(executors) == {"check", *STEPS}
    for values in executors.values():
        json_format.ParseDict(values, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


@pytest.mark.parametrize(
    "typo",
    [
        {"nodeSelectr": {"labels": {"pool": "gpu"}}},
        {"nodeSelector": {"label": {"pool": "gpu"}}},
        {"tolerations": [{"key": "batch", "efect": "NoSchedule"}]},
    ],
)
def test_a_typo_in_the_platform_document_does_not_parse(rich: Compiled, typo: dict[str, Any]) -> None:
    with pytest.raises(json_format.ParseError, match="has no field named"):
        json_format.ParseDict(
            {**rich.kubernetes["train"], **typo}, kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        )


def test_gpu_steps_go_to_gpu_nodes_and_the_others_to_cpu_nodes(rich: Compiled) -> None:
    for step in GPU_STEPS:
        assert rich.kubernetes[step]["nodeSelector"] == {"labels": {"pool": "gpu"}}
        tolerations = rich.kubernetes[step]["tolerations"]
        assert tolerations[0] == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert tolerations[1] == {"operator": "Exists"}  # of every taint
        (shm,) = rich.kubernetes[step]["emptyDirMounts"]
        assert shm == {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "64Gi"}
    for step in CPU_STEPS:
        assert rich.kubernetes[step]["nodeSelector"] == {"labels": {"pool": "cpu", "disk": "ssd"}}
        (toleration,) = rich.kubernetes[step]["tolerations"]
        assert toleration == {"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoExecute"}
        assert "emptyDirMounts" not in rich.kubernetes[step]


def test_without_a_selector_gpu_steps_go_to_nodes_with_the_accelerators_label() -> None:
    selectors = {
        step: values.get("nodeSelector") for step, values in compiled_once("kubeflow", "default").kubernetes.items()
    }
    assert selectors == {
        **dict.fromkeys(CPU_STEPS),
        **{step: {"labels": {LABEL: "nvidia-l4"}} for step in GPU_STEPS},
    }


def test_cpu_and_memory_are_limits_and_requests(rich: Compiled) -> None:
    for step, resources in rich.resources.items():
        cpu, memory = ("30", "200Gi") if step in GPU_STEPS else ("2", "9Gi")
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == cpu
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == memory


@pytest.mark.parametrize(("target", "accelerator"), [("kubeflow", "nvidia.com/gpu"), ("vertex", "NVIDIA_H100_80GB")])
def test_gpu_steps_alone_ask_for_gpus_and_how_many_is_said_at_run_time(target: str, accelerator: str) -> None:
    pipeline = compiled_once(target, "rich")
    for step, resources in pipeline.resources.items():
        assert ("accelerator" in resources) == (step in GPU_STEPS)
        if step in GPU_STEPS:
            assert resources["accelerator"]["resourceType"] == accelerator
            assert resources["accelerator"]["resourceCount"] == "{{$.inputs.parameters['pipelinechannel--num_gpus']}}"
            inputs = pipeline.tasks[step]["inputs"]["parameters"]
            assert inputs["pipelinechannel--num_gpus"] == {"componentInputParameter": "num_gpus"}
            assert inputs["num_gpus"] == {"componentInputParameter": "num_gpus"}
    parameter = pipeline.documents[0]["root"]["inputDefinitions"]["parameters"]["num_gpus"]
    assert (parameter["defaultValue"], parameter["parameterType"]) == ("4", "STRING")


def test_a_gpu_count_that_is_a_number_is_refused() -> None:
    from natix_components.train import train

    @dsl.pipeline
    def with_number(num_gpus: int = 1) -> None:
        task = train(
            settings={},
            num_gpus="1",
            nodes={},
            **{
                name: dsl.importer(artifact_uri="gs://a/b", artifact_class=dsl.Dataset).output
                for name in ("train_set", "val_select_set", "val_calib_set")
            },
            backbone=dsl.importer(artifact_uri="gs://a/b", artifact_class=dsl.Model).output,
        )
        with pytest.raises(ConfigError, match="num_gpus must be a text parameter, a number would give no GPU"):
            Target("kubeflow").place(task, "train", Hardware(), num_gpus)
        with pytest.raises(ConfigError, match="got int"):
            Target("kubeflow").place(task, "train", Hardware(), 1)


def test_no_gpu_is_asked_for_when_the_config_wants_none() -> None:
    bare = compiled_once("kubeflow", "bare")
    assert all("accelerator" not in resources for resources in bare.resources.values())
    assert bare.resources["train"]["resourceMemoryLimit"] == "16Gi" and "nodeSelector" not in bare.kubernetes["train"]
    assert bare.containers["train"]["image"] == "registry/gpu"


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_steps_on_gpu_nodes_and_tasks_that_look_at_a_source_are_tried_again_and_no_others(target: str) -> None:
    policies = {
        step: task["retryPolicy"] for step, task in compiled_once(target, "rich").tasks.items() if "retryPolicy" in task
    }
    assert set(policies) == {"check", "ingest", "split", "fetch", "adapt", "train"}
    for step, policy in policies.items():
        assert (policy["maxRetryCount"], policy["backoffDuration"], policy["backoffFactor"]) == (3, "20s", 2.0)
        hours = 10 if step in GPU_STEPS else 0.5
        window = f"{int(4 * hours * 3600) + 20 + 40 + 80}s"  # four attempts and the waits between them
        assert policy["backoffMaxDuration"] == (window if target == "kubeflow" else "3600s")
    assert all("retryPolicy" not in task for task in compiled_once(target, "bare").tasks.values())


def test_a_step_that_takes_too_long_is_stopped_on_kubeflow(rich: Compiled) -> None:
    seconds = {step: int(values["activeDeadlineSeconds"]) for step, values in rich.kubernetes.items()}
    assert seconds == {**dict.fromkeys(CPU_STEPS, 1800), **dict.fromkeys(GPU_STEPS, 36000)}


def test_the_pull_policy_is_the_configs(rich: Compiled) -> None:
    assert {values["imagePullPolicy"] for values in rich.kubernetes.values()} == {"Always"}


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_steps_that_the_config_names_are_not_cached(target: str) -> None:
    tasks = compiled_once(target, "rich").tasks
    uncached = {step for step, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"check", "ingest", "evaluate"}
    uncached = {step for step, task in compiled_once(target, "default").tasks.items() if not task["cachingOptions"]}
    assert uncached == {"check"}


def test_the_token_comes_from_a_secret_that_only_those_see_who_ask_the_hub(rich: Compiled) -> None:
    assert [step for step, values in rich.kubernetes.items() if "secretAsEnv" in values] == ["check", "fetch"]
    for step in ("check", "fetch"):
        (secret,) = rich.kubernetes[step]["secretAsEnv"]
        assert secret["secretName"] == "hub" and secret["optional"] is True
        assert secret["keyToEnv"] == [{"secretKey": "token", "envVar": "HF_TOKEN"}]
        assert rich.constant(step, "token_secret") == ""
    assert "secretAsEnv" not in compiled_once("kubeflow", "bare").text


def test_on_vertex_check_and_fetch_are_told_the_secret_that_they_read() -> None:
    for step in ("check", "fetch"):
        assert compiled_once("vertex", "rich").constant(step, "token_secret") == "hub"
        assert compiled_once("vertex", "bare").constant(step, "token_secret") == ""
    for name in ("hf-token", "projects/street/secrets/hub", "projects/street/secrets/hub/versions/3"):
        assert Target("vertex").token_secret(Hardware(hf_token_secret=name)) == name


@pytest.mark.parametrize(
    ("target", "name", "message"),
    [
        ("kubeflow", "projects/p/secrets/s", "for kubeflow must be a Kubernetes name.*got 'projects/p/"),
        ("kubeflow", "HF_TOKEN", "for kubeflow must be a Kubernetes name.*got 'HF_TOKEN'"),
        (
            "vertex",
            "a/b",
            "must be the name of a Kubernetes secret, an id in Secret Manager or projects/PROJ.*got 'a/b'",
        ),
    ],
)
def test_a_secret_that_the_target_cannot_have_is_refused(target: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"hardware.hf_token_secret {message}"):
        Compiled(target, {"hf_token_secret": name})


def test_on_several_nodes_the_gpu_steps_are_launchers_on_cpu_nodes(nodes: Compiled) -> None:
    assert "accelerator:" not in nodes.text and "emptyDirMounts" not in nodes.text
    for step in GPU_STEPS:
        assert nodes.containers[step]["image"] == "registry/cpu"
        assert nodes.resources[step]["resourceMemoryLimit"] == "9Gi"
        assert nodes.kubernetes[step]["nodeSelector"] == {"labels": {"pool": "cpu", "disk": "ssd"}}
        assert nodes.kubernetes[step]["tolerations"] == nodes.kubernetes["ingest"]["tolerations"]
        assert nodes.kubernetes[step]["activeDeadlineSeconds"] == "36000"
        assert nodes.tasks[step]["inputs"]["parameters"]["num_gpus"] == {"componentInputParameter": "num_gpus"}


NOTHING_ELSE: dict[str, Any] = {
    "volumes": [],
    "store_secret": "",
    "store_endpoint": "",
    "pull_secrets": [],
    "labels": {},
    "annotations": {},
    "restricted": False,
}


def test_a_launcher_is_told_of_the_nodes_and_a_step_of_one_node_is_not(nodes: Compiled, rich: Compiled) -> None:
    for step in GPU_STEPS:
        assert rich.constant(step, "nodes") == {}
        assert config.parse(Nodes, nodes.constant(step, "nodes")).model_dump() == {
            "num_nodes": 2,
            "image": "registry/gpu",
            "cpu": "30",
            "memory": "200Gi",
            "shared_memory": "64Gi",
            "node_selector": {"pool": "gpu"},
            "tolerations": settings(RICH).hardware.model_dump()["gpu_tolerations"],
            "timeout_hours": 10.0,
            "shared_root": "gs://bucket/nodes",
            "runtime": "torch-of-ours",
            "service_account": "trainer",
            **NOTHING_ELSE,
        }


def test_what_a_cluster_of_other_people_asks_for_reaches_the_steps() -> None:
    pipeline = compiled_once("kubeflow", "elsewhere")
    mounts = {
        step: [(each["constant"], each["mountPath"]) for each in values.get("pvcMount", [])]
        for step, values in pipeline.kubernetes.items()
    }
    expected = {"check": [("images", "/data")], "ingest": [("images", "/data")]}
    expected |= {step: [("work", "/shared")] for step in ("adapt", "train", "export")}
    assert mounts == {step: expected.get(step, []) for step in ("check", *STEPS)}
    opening = {"check", "ingest", "split", "fetch", "adapt", "train", "export"}
    for step, values in pipeline.kubernetes.items():
        assert values["podMetadata"] == {"labels": ELSEWHERE["labels"], "annotations": ELSEWHERE["annotations"]}
        assert [each["secretName"] for each in values["imagePullSecret"]] == ["registry", "mirror"]
        assert values["securityContext"] == {"runAsNonRoot": True}
        keys = [each["keyToEnv"] for each in values.get("secretAsEnv", []) if each["secretName"] != "hf-token"]
        variables = {each["name"]: each["value"] for each in pipeline.containers[step].get("env", [])}
        if step in opening:
            assert {each["secretKey"]: each["envVar"] for each in keys[0]} == {
                "accesskey": "AWS_ACCESS_KEY_ID",
                "secretkey": "AWS_SECRET_ACCESS_KEY",
            }
        assert bool(keys) == (step in opening)
        assert variables == ({"AWS_ENDPOINT_URL": ELSEWHERE["store_endpoint"]} if step in opening else {})
    told = Target("kubeflow").nodes(settings({**ELSEWHERE, "num_nodes": 2}).hardware)
    assert told["volumes"] == [{**ELSEWHERE["volumes"][1], "read_only": False}] and told["restricted"] is True
    assert {key: told[key] for key in NOTHING_ELSE if key != "volumes"} == {
        key: ELSEWHERE[key] for key in NOTHING_ELSE if key != "volumes"
    }


def test_vertex_refuses_what_its_steps_would_miss_and_ignores_the_rest() -> None:
    for key in ("volumes", "store_secret"):
        with pytest.raises(ConfigError, match=f"hardware.{key} must be empty for vertex"):
            Compiled("vertex", {key: ELSEWHERE[key]})
    ignored = {key: ELSEWHERE[key] for key in ("labels", "annotations", "pull_secrets", "restricted", "store_endpoint")}
    assert Compiled("vertex", {**HARDWARE["bare"], **ignored}).text == compiled_once("vertex", "bare").text


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ({"volumes": [{"claim": "a", "path": "data"}]}, r"volumes.0.path must be an absolute path .* got 'data'"),
        (
            {"volumes": [{"claim": "a", "path": "/tmp/"}]},
            "volumes.0.path must be an absolute path of a folder of its own",
        ),
        ({"volumes": [{"claim": "a", "path": "/a/../b"}]}, "volumes.0.path must be an absolute path"),
        (
            {"volumes": [{"claim": "a", "path": "/a", "steps": ["ingst"]}]},
            r"volumes\[\].steps must be among check, ing",
        ),
        (
            {"volumes": [{"claim": "a", "path": "/a"}, {"claim": "b", "path": "/a/"}]},
            "must each have a path of its own",
        ),
        ({"store_endpoint": "seaweedfs:8333"}, "store_endpoint must be http://host"),
        ({"num_nodes": 2, "shared_root": "/shared/nodes"}, "or lie on a writable one of hardware.volumes"),
        (
            {"num_nodes": 2, "shared_root": "/a/b", "volumes": [{"claim": "a", "path": "/a", "read_only": True}]},
            "shared_root must be a gs:// or s3:// prefix, or lie on a writable one",
        ),
        (
            {"num_nodes": 2, "shared_root": "/a/b", "volumes": [{"claim": "a", "path": "/a", "steps": ["adapt"]}]},
            r"shared_root '/a/b' must lie on a volume that adapt and train both mount, got steps: \['adapt'\] for /a$",
        ),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_refused(hardware: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(hardware)


def test_vertex_refuses_several_nodes_and_local_takes_one() -> None:
    with pytest.raises(
        ConfigError, match="hardware.num_nodes must be 1 for vertex, which has no TrainJobs, got 2: use"
    ):
        Compiled("vertex", HARDWARE["nodes"])
    local = yaml.safe_load(on_a_short_stack(compiled, local_target(), settings(HARDWARE["nodes"]), False))
    parameters = local["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]
    assert parameters["nodes"]["runtimeValue"]["constant"] == {}
    assert parameters["num_gpus"]["runtimeValue"]["constant"] == "4"
    assert "retryPolicy" not in local["root"]["dag"]["tasks"]["train"]
    assert not local["root"]["dag"]["tasks"]["ingest"]["cachingOptions"].get("enableCache")


def test_locally_the_settings_are_constants_and_nothing_is_checked_again() -> None:
    local = yaml.safe_load(on_a_short_stack(compiled, local_target(), settings({}), True))
    tasks = local["root"]["dag"]["tasks"]
    assert set(tasks) == set(STEPS)
    with_adapt = settings({}).model_copy(
        update={"model": settings({}).model.model_copy(update={"init_from_explora": True})}
    )
    for step, expected in step_settings(with_adapt).items():
        assert tasks[step]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"] == expected
    assert set(local["root"]["inputDefinitions"]["parameters"]) == set(FINGERPRINTS)


def test_an_accelerator_that_vertex_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="hardware.accelerator for vertex must be one of nvidia-l4.*got tpu"):
        Compiled("vertex", {"accelerator": "tpu"})
    with pytest.raises(ConfigError, match="target must be kubeflow, vertex or local, got 'moon'"):
        Target("moon")


def test_the_images_of_a_target_reach_every_task(rich: Compiled) -> None:
    assert {step: container["image"] for step, container in rich.containers.items()} == {
        **dict.fromkeys(CPU_STEPS, "registry/cpu"),
        **dict.fromkeys(GPU_STEPS, "registry/gpu"),
    }


def test_the_local_image_is_named_by_the_code() -> None:
    image = local_target().cpu_image
    assert image.startswith("natix-local-python:") and len(image.split(":")[1]) == 16


def test_the_hash_of_the_code_follows_what_runs_and_not_where_it_lies(tmp_path: Path) -> None:
    def written(place: str, **files: str) -> str:
        for name, text in files.items():
            path = tmp_path / place / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return code_sha256([tmp_path / place])

    first = written("a", step_py="1", page_j2="2")
    assert first == written("b", step_py="1", page_j2="2", notes_txt="3")
    hashes = {first, written("c", step_py="2", page_j2="1"), written("d", step_py="1"), written("e", other_py="1")}
    assert len(hashes) == 4
