"""adapt and train on two nodes: real processes, started by a stand-in of the Kubernetes API."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from natix_lib import config, repeats
from natix_lib.config.hardware import Nodes
from natix_lib.config.section import Section
from natix_lib.config.step_settings import AdaptSettings, TrainSettings
from natix_lib.contracts import STEPS, read_manifest
from natix_lib.distributed import jobs, trainjob
from natix_lib.distributed.exchange import Answer
from natix_lib.distributed.launch import launch
from natix_lib.errors import ConfigError, TrainingError
from natix_lib.steps import adapt_worker, train_worker
from natix_lib.training.artifact import load_classifier
from tests.cloud_storage import Cloud
from tests.explora.small import small
from tests.kubernetes_api import Cluster, cluster, nodes
from tests.small_run import TRAIN, Chain
from tests.street_sets import run_step


@pytest.fixture
def kubernetes(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.2)
    with cluster(tmp_path / "cluster") as started:
        use_kubeconfig(monkeypatch, started.kubeconfig)
        yield started


def use_kubeconfig(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))  # read at import


def train_settings(**training: Any) -> dict[str, Any]:
    return {**TRAIN, "training": {**TRAIN["training"], "epochs": 2, **training}, "num_gpus": 1}


def adapt_settings(**changes: Any) -> dict[str, Any]:
    explora = small(**{"steps": 2, "batch_size": 16, "device_batch_size": 8, **changes}).model_dump(mode="json")
    return {"num_workers": 0, "image_size": 32, "num_gpus": 1, "explora": explora}


def inputs(chain: Chain, step: str) -> dict[str, str]:
    return {name: chain.paths[name] for name in STEPS[step].inputs}


def ask(step: str, settings: dict[str, Any], chain: Chain, num_gpus: int, nodes: Nodes | None) -> Answer:
    """Compute for a step, as the step itself does after its checks."""
    worker = {"adapt": adapt_worker, "train": train_worker}[step]
    sections: dict[str, type[Section]] = {"adapt": AdaptSettings, "train": TrainSettings}
    parsed, paths = config.parse(sections[step], settings), inputs(chain, step)
    here = partial(worker.compute_from_paths, settings, paths)
    return launch(step, worker.__name__, here, parsed, paths, num_gpus, nodes)


@pytest.mark.slow
def test_train_on_two_nodes_gives_what_one_machine_gives(
    chain: Chain, kubernetes: Cluster, cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**train_settings(), "nodes": nodes().model_dump(mode="json")}
    run_step("train", settings, tmp_path, chain.paths)
    assert read_manifest(tmp_path / "classifier", "classifier")["trained"]["epochs"] == 2
    log = capsys.readouterr().out
    assert "2 nodes, 1 processes on each" in log and "node 0 of 2" in log and "epochs: 2/2 train/loss" in log
    (job,) = kubernetes.created
    assert kubernetes.deleted == [job["metadata"]["name"]] and not cloud.holds(f"shared/{job['metadata']['name']}")
    alone, _ = ask("train", train_settings(), chain, 1, None)
    together = load_classifier(tmp_path / "classifier")[0].state_dict()
    for name, value in together.items():
        torch.testing.assert_close(value, alone[f"classifier.{name}"], rtol=1e-3, atol=1e-4, msg=name)


def test_the_job_asks_for_nodes_gpus_memory_and_place(chain: Chain, kubernetes: Cluster) -> None:
    kubernetes.refusals.append((403, "Forbidden", "exceeded quota: natix"))
    with pytest.raises(
        TrainingError, match=r"TrainJob natix-train-\w{16} cannot be created: Failed to .*: exceeded quota: natix"
    ):
        ask("train", train_settings(), chain, 4, nodes())
    kubernetes.command = [sys.executable, "-c", "raise SystemExit(1)"]
    with pytest.raises(TrainingError, match=r"TrainJob natix-train-\w{16} failed and gave no reason"):
        ask("train", train_settings(), chain, 4, nodes())
    (job,) = kubernetes.created
    spec, trainer = job["spec"], job["spec"]["trainer"]
    assert spec["activeDeadlineSeconds"] == 5400 and spec["runtimeRef"]["name"] == "torch-distributed"
    assert trainer["numNodes"] == 2 and trainer["image"] == nodes().image
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": 4}
    (patch,) = spec["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == nodes().node_selector and pod["serviceAccountName"] == "pipeline-runner"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["volumes"] == [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}]
    assert pod["containers"] == [{"name": "node", "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}]}]


@pytest.mark.slow
def test_adapt_on_two_nodes_gives_what_one_machine_gives_through_an_outage_of_the_api(
    chain: Chain, kubernetes: Cluster, tmp_path: Path
) -> None:
    kubernetes.outage = 3
    settings = {**adapt_settings(promote="always"), "nodes": nodes().model_dump(mode="json")}
    _, figures = run_step("adapt", settings, tmp_path, chain.paths)
    made = read_manifest(tmp_path / "backbone", "backbone")
    assert made["adaptation"]["promoted"] and figures["steps"] == 2 and len(kubernetes.created) == 1
    _, alone = adapt_worker.compute_from_paths(adapt_settings(device_batch_size=16), inputs(chain, "adapt"))
    curve = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]]
    assert [float(row[4]) for row in curve] == pytest.approx([row["loss"] for row in alone["history"]], rel=2e-3)


@pytest.mark.slow
def test_the_reason_of_a_node_that_fails_comes_back_and_the_next_try_gets_a_new_job(
    chain: Chain, kubernetes: Cluster
) -> None:
    for tries in (1, 2):
        with pytest.raises(TrainingError, match=r"is (nan|inf) at step 1: lower explora.lr"):
            ask("adapt", adapt_settings(lr=1e30), chain, 1, nodes())
        assert len(kubernetes.created) == tries and len(kubernetes.jobs) == 1


def test_an_api_that_stays_away_ends_the_step(
    chain: Chain, kubernetes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    kubernetes.outage = 1000
    with pytest.raises(TrainingError, match=r"TrainJob natix-train-\w{16} cannot be read: .*Service Unavailable"):
        ask("train", train_settings(), chain, 1, nodes())
    assert kubernetes.jobs  # the next try finds it


def test_a_job_that_ends_well_and_leaves_no_answer_is_an_error_and_is_made_anew(
    chain: Chain, kubernetes: Cluster
) -> None:
    kubernetes.command = [sys.executable, "-c", ""]
    for tries in (1, 2):
        with pytest.raises(TrainingError, match="ended with exit code 0 and gave no reason"):
            ask("train", train_settings(), chain, 1, nodes())
        assert len(kubernetes.created) == tries


def test_another_question_has_another_name(chain: Chain) -> None:
    request = {"settings": train_settings(), "inputs": [], "processes": 1}

    def name_of(request: dict[str, Any], paths: dict[str, str], **changes: Any) -> str:
        return trainjob.job_name("train", request, paths, nodes(**changes))

    paths = inputs(chain, "train")
    name = name_of(request, paths)
    assert name == name_of(dict(request), paths) and len(name) <= 63
    assert name != name_of({**request, "processes": 2}, paths)
    assert name != name_of(request, paths, num_nodes=3)
    assert name != name_of(request, {**paths, "splits": chain.paths["thresholds"]})


def test_a_batch_that_the_nodes_do_not_allow_is_refused_before_a_job_is_made(
    chain: Chain, kubernetes: Cluster, tmp_path: Path
) -> None:
    settings = {**adapt_settings(), "nodes": nodes(num_nodes=3).model_dump(mode="json")}
    with pytest.raises(ConfigError, match="multiple of explora.device_batch_size x 3 processes"):
        run_step("adapt", settings, tmp_path, chain.paths)
    assert not kubernetes.created


def test_no_cluster_is_one_line(chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_kubeconfig(monkeypatch, tmp_path / "absent")
    with pytest.raises(TrainingError, match="no Kubernetes API for a TrainJob"):
        ask("train", train_settings(), chain, 1, nodes())
