"""What a TrainJob's pods are given beside their image, as the API's own models read it."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from kubeflow_trainer_api import models

from natix_lib.config.hardware import Volume
from natix_lib.distributed.template import STORE_KEYS, environment, job_options, take_store_keys
from tests.kubernetes_api import nodes


def made(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The TrainJob's metadata and the pod template, as the SDK sends them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, for the SDK
        from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend

    job: dict[str, Any] = {}
    for option in job_options(nodes(**changes)):
        option(job, None, object.__new__(KubernetesBackend))
    (patch,) = job["spec"]["runtimePatches"]
    known = models.TrainerV1alpha1RuntimePatch.from_dict(patch)
    assert known is not None and known.to_dict() == patch, "a field that the API does not know"
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return job.get("metadata", {}), replicated["template"]["spec"]["template"]


def test_nodes_get_volumes_keys_labels_and_the_whole_restricted_context() -> None:
    labels, annotations = {"kueue.x-k8s.io/queue-name": "street"}, {"sidecar.istio.io/inject": "false"}
    metadata, template = made(
        volumes=[Volume(claim="images", path="/data", read_only=True), Volume(claim="work", path="/shared")],
        store_secret="keys",
        store_endpoint="http://seaweedfs.kubeflow.svc:8333",
        pull_secrets=["registry"],
        labels=labels,
        annotations=annotations,
        restricted=True,
    )
    assert metadata == template["metadata"] == {"labels": labels, "annotations": annotations}
    pod = template["spec"]
    (container,) = pod["containers"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["volumes"][1:] == [
        {"name": "volume-0", "persistentVolumeClaim": {"claimName": "images", "readOnly": True}},
        {"name": "volume-1", "persistentVolumeClaim": {"claimName": "work"}},
        {"name": "store-keys", "secret": {"secretName": "keys"}},
    ]
    assert container["volumeMounts"][1:] == [
        {"name": "volume-0", "mountPath": "/data", "readOnly": True},
        {"name": "volume-1", "mountPath": "/shared"},
        {"name": "store-keys", "mountPath": str(STORE_KEYS), "readOnly": True},
    ]
    context = container["securityContext"]  # the Pod Security Standards, "Restricted", each row of it
    assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"] is pod["securityContext"]["runAsNonRoot"] is True
    assert context["seccompProfile"] == pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "env" not in container, "Trainer refuses variables of this container"
    assert environment(nodes(store_endpoint="http://a:1")) == {"AWS_ENDPOINT_URL": "http://a:1"}


def test_by_default_nodes_get_nothing_of_it() -> None:
    metadata, template = made()
    assert metadata == {} and set(template) == {"spec"} and environment(nodes()) is None
    assert set(template["spec"]) == {"serviceAccountName", "nodeSelector", "tolerations", "volumes", "containers"}


def test_a_node_takes_the_keys_of_the_store_that_its_pod_has_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "before")
    take_store_keys(tmp_path)
    assert os.environ["AWS_ACCESS_KEY_ID"] == "before"
    (tmp_path / "accesskey").write_text("minio\n")
    (tmp_path / "secretkey").write_text("minio123")
    take_store_keys(tmp_path)
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]) == ("minio", "minio123")
