"""Made clusters: what a good one answers, and a stand-in of its API server."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.loopback import Handler, serving

Paths = dict[str, Any]  # what is at a path: an object, or a status that refuses

HERE, KFP = "/api/v1/namespaces/street", "/api/v1/namespaces/kubeflow"
NODES = "/api/v1/nodes"
ARGO = f"{KFP}/configmaps/workflow-controller-configmap"
SERVER = "/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline"
HEALTH = f"{KFP}/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
GPU_LABELS = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def node(name: str, labels: dict[str, str] | None = None, taints: Any = (), **allocatable: str) -> dict[str, Any]:
    given = {"cpu": "7910m", "memory": "28Gi", "ephemeral-storage": "94Gi", **allocatable}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **(labels or {})}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": given, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def gpu_node(name: str, **allocatable: str) -> dict[str, Any]:
    return node(name, GPU_LABELS, [GPU_TAINT], **{"cpu": "11", "memory": "44Gi", "nvidia.com/gpu": "1", **allocatable})


def config_map(**data: str) -> dict[str, Any]:
    return {"data": data}


def argo(policy: str, limit: str) -> dict[str, Any]:
    strategy = {"spec": {"templateDefaults": {"retryStrategy": {"limit": limit, "retryPolicy": policy}}}}
    return config_map(workflowDefaults=yaml.safe_dump(strategy))


GOOD: Paths = {
    "/version": {"gitVersion": "v1.33.1"},
    NODES: {"items": [node("cpu-1"), gpu_node("gpu-1")]},
    f"{NODES}/cpu-1/proxy/stats/summary": {"node": {"fs": {"availableBytes": 50_000_000_000}}},
    HERE: {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
    f"{HERE}/resourcequotas": {"items": []},
    f"{HERE}/limitranges": {"items": []},
    f"{HERE}/serviceaccounts/pipeline-runner": {"metadata": {}},
    f"{HERE}/configmaps/kfp-launcher": config_map(defaultPipelineRoot="gs://street/kfp"),
    f"{HERE}/secrets/hf-token": {"metadata": {}},
    ARGO: argo("Always", "0"),
    SERVER: {"spec": {"template": {"spec": {"containers": [{"image": "ghcr.io/kubeflow/kfp-api-server:2.17.0"}]}}}},
    "/apis/argoproj.io": {},
    HEALTH: {"multi_user": False},
    REVIEWS: {"status": {"allowed": True}},
}


def made(changes: Paths) -> Paths:
    """The good cluster with changes; None takes a path away."""
    return {path: value for path, value in {**copy.deepcopy(GOOD), **changes}.items() if value is not None}


@contextmanager
def api_server(paths: Paths, folder: Path) -> Iterator[list[tuple[str, dict[str, str], Any]]]:
    """Serve; gives what was asked: path, headers and body; the kubeconfig is `folder / "kubeconfig"`."""
    asked: list[tuple[str, dict[str, str], Any]] = []

    class Server(Handler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: Any) -> None:
            path = urlsplit(self.path).path
            asked.append((path, dict(self.headers), body))
            value = paths.get(path, 404)
            if callable(value):
                value = value(body)
            if isinstance(value, int):
                self.answer(value, json.dumps({"kind": "Status", "code": value}).encode())
            else:
                self.answer_json(value)

    with serving(Server) as url:
        write_kubeconfig(folder, url)
        yield asked


def write_kubeconfig(folder: Path, url: str) -> None:
    """Write `folder / "kubeconfig"` for an API server."""
    name = {"name": "made"}
    values = {
        "current-context": "made",
        "clusters": [{**name, "cluster": {"server": url}}],
        "users": [{**name, "user": {"token": "secret-token"}}],
        "contexts": [{**name, "context": {"cluster": "made", "user": "made"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(values))
