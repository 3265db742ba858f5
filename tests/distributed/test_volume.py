"""adapt and train on two nodes that share a folder of a volume, with all that a cluster of other people asks for."""

from pathlib import Path

import pytest

from natix_lib.config.hardware import Volume
from natix_lib.contracts import read_manifest
from tests.distributed.test_trainjob import kubernetes as kubernetes_fixture
from tests.distributed.test_trainjob import train_settings
from tests.kubernetes_api import Cluster, nodes
from tests.small_run import Chain
from tests.street_sets import run_step

kubernetes = kubernetes_fixture


@pytest.mark.slow
def test_train_on_two_nodes_through_a_volume(chain: Chain, kubernetes: Cluster, tmp_path: Path) -> None:
    shared = tmp_path / "volume" / "nodes"
    shared.mkdir(parents=True)
    asked = nodes(
        shared_root=str(shared),
        volumes=[Volume(claim="work", path=str(tmp_path / "volume"))],
        store_secret="keys",
        store_endpoint="http://seaweedfs.kubeflow.svc:8333",
        labels={"kueue.x-k8s.io/queue-name": "street"},
        annotations={"sidecar.istio.io/inject": "false"},
        pull_secrets=["registry"],
        restricted=True,
    )
    run_step("train", {**train_settings(), "nodes": asked.model_dump(mode="json")}, tmp_path, chain.paths)
    assert read_manifest(tmp_path / "classifier", "classifier")["trained"]["epochs"] == 2
    (job,) = kubernetes.created
    assert job["metadata"]["labels"] == asked.labels
    assert job["spec"]["trainer"]["env"] == [{"name": "AWS_ENDPOINT_URL", "value": asked.store_endpoint}]
    assert not [path for path in shared.rglob("*") if path.is_file()], "what was shared is removed"
