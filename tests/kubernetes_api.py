"""A stand-in of the Kubernetes API with Kubeflow Trainer v2: a TrainJob's nodes are processes of this machine.

It takes exactly what the SDK's own models of the API know, runs the command of a job once for each node with the
variables that Trainer's torch plugin sets, and tells pods, logs and conditions as the control plane would.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubeflow_trainer_api import models

from natix_lib.config.hardware import Nodes, Toleration
from tests.loopback import Handler, serving

NAMESPACE, RUNTIME = "street", "torch-distributed"
CREATED = "2026-01-01T00:00:00Z"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
ROOT = Path(__file__).parent.parent
RUNTIMES = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {"numProcPerNode": "auto"}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                            "spec": {"template": {"spec": {"containers": [{"name": "node", "image": "torch"}]}}},
                        },
                    }
                ]
            }
        },
    },
}


@dataclass
class Cluster:
    """What the stand-in holds.

    Attributes:
        kubeconfig: For KUBECONFIG.
        jobs: TrainJobs by name.
        created: Every TrainJob that was ever created.
        deleted: Names, in order.
        refusals: Status and reason for the next creations, instead of creating.
        command: What nodes run instead of what their job says.
        outage: How many questions for a job that runs are answered with 503.
    """

    kubeconfig: Path
    folder: Path
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    outage: int = 0
    nodes: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        job["metadata"] |= {"namespace": NAMESPACE, "creationTimestamp": CREATED, "uid": name}
        self.jobs[name] = job
        self.created.append(job)
        trainer = job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = self.command or [sys.executable if part == "python3" else part for part in trainer["command"]]
        for rank in range(trainer["numNodes"]):
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": "1",
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            with self.log(name, rank).open("wb") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            self.nodes.setdefault(name, []).append(process)

    def log(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}-node-{rank}.log"

    def status(self, name: str) -> dict[str, Any]:
        processes = self.nodes.get(name, [])
        codes = [process.poll() for process in processes]
        if any(code for code in codes):
            for process in processes:
                process.kill()  # JobSet's failure policy
            kind = "Failed"
        elif all(code == 0 for code in codes):
            kind = "Complete"
        else:
            return {}
        condition = {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": CREATED}
        return {"conditions": [condition]}

    def pods(self, name: str) -> list[dict[str, Any]]:
        phases = {None: "Running", 0: "Succeeded"}
        return [
            {
                "metadata": {
                    "name": f"{name}-node-{rank}",
                    "namespace": NAMESPACE,
                    "creationTimestamp": CREATED,
                    "labels": {
                        "jobset.sigs.k8s.io/jobset-name": name,
                        "jobset.sigs.k8s.io/replicatedjob-name": "node",
                        "batch.kubernetes.io/job-completion-index": str(rank),
                    },
                },
                "spec": {"containers": [{"name": "node", "image": "natix"}]},
                "status": {"phase": phases.get(process.poll(), "Failed")},
            }
            for rank, process in enumerate(self.nodes.get(name, []))
        ]

    def delete(self, name: str) -> None:
        del self.jobs[name]
        self.deleted.append(name)
        for process in self.nodes.pop(name):
            process.kill()
            process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Serve a cluster for a block."""
    found = Cluster(folder / "kubeconfig", folder)

    class Kubernetes(Handler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if found_job := re.fullmatch(f"{TRAINER}/namespaces/{NAMESPACE}/trainjobs/([a-z0-9-]+)", path):
                if found.jobs and found.outage:
                    found.outage -= 1
                    self.refuse(503, "ServiceUnavailable")
                    return
                with found.lock:
                    job = found.jobs.get(found_job[1])
                    if job:
                        job = {**job, "status": found.status(found_job[1])}
                self.answer_json(job) if job else self.refuse(404, "NotFound")
            elif path == f"{TRAINER}/clustertrainingruntimes/{RUNTIME}":
                self.answer_json(RUNTIMES)
            elif path == f"/api/v1/namespaces/{NAMESPACE}/pods":
                selector = self.path.split("jobset-name%3D")[1]
                self.answer_json({"kind": "PodList", "items": found.pods(selector.split("%2C")[0])})
            elif found_log := re.fullmatch(f"/api/v1/namespaces/{NAMESPACE}/pods/(.+)-node-([0-9]+)/log", path):
                name, rank = found_log[1], int(found_log[2])
                if name not in found.nodes:
                    self.refuse(404, "NotFound")
                    return
                process = found.nodes[name][rank]
                while process.poll() is None:  # a deleted job's node is killed, which ends its log
                    found.status(name)  # a node that fails takes the others with it
                    time.sleep(0.1)
                self.answer(200, found.log(name, rank).read_bytes(), {"Content-Type": "text/plain"})
            else:
                self.refuse(404, "NotFound")

        def do_POST(self) -> None:
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = models.TrainerV1alpha1TrainJob.from_dict(job)
            assert known is not None and known.to_dict() == job, "a field that the API does not know"
            if found.refusals:
                self.refuse(*found.refusals.pop(0))
                return
            with found.lock:
                found.create(job)
            self.answer_json(job)

        def do_DELETE(self) -> None:
            name = urlsplit(self.path).path.rsplit("/", 1)[1]
            with found.lock:
                if name not in found.jobs:
                    self.refuse(404, "NotFound")
                    return
                found.delete(name)
            self.answer_json({"kind": "Status", "status": "Success"})

        def refuse(self, status: int, reason: str) -> None:
            self.answer(status, json.dumps({"kind": "Status", "reason": reason, "code": status}).encode(), {})

    with serving(Kubernetes) as url:
        place = {"name": "stand-in"}
        found.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "stand-in",
                    "clusters": [{**place, "cluster": {"server": url}}],
                    "users": [{**place, "user": {"token": "none"}}],
                    "contexts": [
                        {**place, "context": {"cluster": "stand-in", "user": "stand-in", "namespace": NAMESPACE}}
                    ],
                }
            )
        )
        try:
            yield found
        finally:
            for name in list(found.jobs):
                found.delete(name)


def nodes(**changes: Any) -> Nodes:
    """What asks the stand-in for a TrainJob."""
    values = {
        "num_nodes": 2,
        "image": "registry.example/natix-gpu@sha256:" + "0" * 64,
        "cpu": "8",
        "memory": "32Gi",
        "shared_memory": "8Gi",
        "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": [Toleration(key="nvidia.com/gpu", effect="NoSchedule")],
        "timeout_hours": 1.5,
        "shared_root": "gs://street/shared",
        "runtime": "torch-distributed",
        "service_account": "pipeline-runner",
    }
    return Nodes(**{**values, **changes})
