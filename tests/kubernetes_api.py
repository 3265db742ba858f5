"""A stand-in of the Kubernetes API with Kubeflow Trainer v2: a TrainJob's nodes are processes of this machine.

It takes exactly what the SDK's own models of the API know, runs the command of a job once for each node with the
variables that Trainer's torch plugin sets, and tells pods, logs and conditions as the control plane would: changes
are refused for another version, owners as admission does, a log ends with its container.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
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
BACK_OFF = 0.5  # seconds before a container starts again; the kubelet takes ten and more
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
class Pod:
    """A node: its process, which starts again in the same pod when it fails and that is allowed."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    restarts: int = -1
    ended: int | None = None  # exit code of the container before
    over: float = 0.0  # when this one ended

    def start(self) -> None:
        self.restarts += 1
        with self.log_of(self.restarts).open("wb") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def log_of(self, restarts: int) -> Path:
        return self.log.with_suffix(f".{restarts}.log")

    def describe(self, rank: int, job: str) -> dict[str, Any]:
        code = self.process.poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        before = {"terminated": {"exitCode": self.ended, "reason": "Error"}} if self.ended is not None else {}
        return {
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "creationTimestamp": CREATED,
                "labels": {
                    "jobset.sigs.k8s.io/jobset-name": job,
                    "jobset.sigs.k8s.io/replicatedjob-name": "node",
                    "batch.kubernetes.io/job-completion-index": str(rank),
                },
            },
            "spec": {"containers": [{"name": "node", "image": "natix"}]},
            "status": {
                "phase": {None: "Running", 0: "Succeeded"}.get(code, "Failed"),
                "containerStatuses": [
                    {
                        "name": "node",
                        "image": "natix",
                        "imageID": "natix",
                        "ready": code is None,
                        "restartCount": self.restarts,
                        "containerID": f"containerd://{self.name}-{self.restarts}",
                        "state": state,
                        "lastState": before,
                    }
                ],
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
        launchers: Pods of steps, and the UIDs of the Workflows that own them.
        refusals: Status, reason and message for the next creations, instead of creating.
        forbidden: Methods and kinds that the role does not allow, such as "PATCH trainjobs".
        rival: Another creates the job just before the next creation.
        restarts: How often the container of a node that fails starts again.
        cuts: Lines after which the next followed logs break off.
        command: What nodes run instead of what their job says, with its last argument, the address of its folder.
        outage: How many questions for a job that runs are answered with 503.
        ends: Seconds from SIGTERM to the end of each node of a deleted job.
    """

    kubeconfig: Path
    folder: Path
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    launchers: dict[str, str] = field(default_factory=dict)
    refusals: list[tuple[int, str, str]] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    rival: bool = False
    restarts: int = 0
    cuts: list[int] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    outage: int = 0
    ends: list[float] = field(default_factory=list)
    nodes: dict[str, list[Pod]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 0

    def create(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        job["metadata"] |= {"namespace": NAMESPACE, "creationTimestamp": CREATED, "uid": str(uuid.uuid4())}
        self.jobs[name] = job
        self.created.append(job)
        self.change(name)
        trainer = job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = [sys.executable if part == "python3" else part for part in trainer["command"]]
        command = [*self.command, own[-1]] if self.command else own
        pods = []
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
            pod = Pod(f"{name}-node-{rank}", command, environment, self.folder / f"{name}-{rank}")
            pod.start()
            pods.append(pod)
        self.nodes[name] = pods

    def change(self, name: str) -> None:
        """A version for each change, as the API counts them."""
        self.version += 1
        self.jobs[name]["metadata"]["resourceVersion"] = str(self.version)

    def tend(self) -> None:
        """What the control plane does meanwhile: start containers again, tell how a job ended."""
        with self.lock:
            for name, job in self.jobs.items():
                if "status" not in job and (kind := self._outcome(self.nodes[name])):
                    job["status"] = {
                        "conditions": [
                            {
                                "type": kind,
                                "status": "True",
                                "reason": kind,
                                "message": "",
                                "lastTransitionTime": CREATED,
                            }
                        ]
                    }
                    self.change(name)

    def _outcome(self, pods: list[Pod]) -> str:
        codes = [pod.process.poll() for pod in pods]
        for pod, code in zip(pods, codes, strict=True):
            if code and pod.restarts < self.restarts:
                pod.over = pod.over or time.monotonic()
                if time.monotonic() - pod.over > BACK_OFF:
                    pod.ended, pod.over = code, 0.0
                    pod.start()
                return ""
        if any(codes):
            for pod in pods:
                pod.process.kill()  # JobSet's failure policy
            return "Failed"
        return "Complete" if all(code == 0 for code in codes) else ""

    def patch(self, name: str, changes: dict[str, Any]) -> tuple[int, str]:
        """Merge metadata, as admission and the registry allow it; status and reason where they do not."""
        metadata = self.jobs[name]["metadata"]
        if changes.pop("resourceVersion", metadata["resourceVersion"]) != metadata["resourceVersion"]:
            return 409, "Conflict"
        for owner in changes.get("ownerReferences", []):
            if owner.keys() - {"blockOwnerDeletion", "controller"} != {"apiVersion", "kind", "name", "uid"}:
                return 422, "Invalid"
            if owner.get("blockOwnerDeletion"):
                return 403, "Forbidden"  # OwnerReferencesPermissionEnforcement
        if sum(bool(owner.get("controller")) for owner in changes.get("ownerReferences", [])) > 1:
            return 422, "Invalid"
        annotations = {**metadata.get("annotations", {}), **changes.pop("annotations", {})}
        metadata |= {**changes, "annotations": {key: value for key, value in annotations.items() if value is not None}}
        self.change(name)
        return 200, ""

    def delete(self, name: str, grace: float = 30.0) -> None:
        """Remove a job, and its nodes as the kubelet does: SIGTERM, and SIGKILL after the grace."""
        del self.jobs[name]
        self.deleted.append(name)
        pods, begun = self.nodes.pop(name), time.monotonic()
        for pod in pods:
            pod.process.terminate()
        for pod in pods:
            try:
                pod.process.wait(max(0.0, begun + grace - time.monotonic()))
            except subprocess.TimeoutExpired:
                pod.process.kill()
                pod.process.wait()
            self.ends.append(time.monotonic() - begun)

    def collect(self, workflow: str) -> None:
        """Kubernetes' garbage collector, after a Workflow was deleted: what has no owner left goes with it."""
        with self.lock:
            for name, job in list(self.jobs.items()):
                owners = job["metadata"].get("ownerReferences", [])
                job["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != workflow]
                if owners and not job["metadata"]["ownerReferences"]:
                    self.delete(name)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Serve a cluster for a block."""
    found = Cluster(folder / "kubeconfig", folder)

    class Kubernetes(Handler):
        protocol_version = "HTTP/1.1"  # in which a log is sent in chunks

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            found.tend()
            if found_job := re.fullmatch(f"{TRAINER}/namespaces/{NAMESPACE}/trainjobs/([a-z0-9-]+)", path):
                if found.jobs and found.outage:
                    found.outage -= 1
                    self.refuse(503, "ServiceUnavailable")
                    return
                job = found.jobs.get(found_job[1])
                self.answer_json(job) if job else self.refuse(404, "NotFound")
            elif path == f"{TRAINER}/clustertrainingruntimes/{RUNTIME}":
                self.answer_json(RUNTIMES)
            elif path == f"/api/v1/namespaces/{NAMESPACE}/pods":
                name = self.path.split("jobset-name%3D")[1].split("%2C")[0]
                pods = [pod.describe(rank, name) for rank, pod in enumerate(found.nodes.get(name, []))]
                self.answer_json({"kind": "PodList", "items": pods})
            elif found_log := re.fullmatch(f"/api/v1/namespaces/{NAMESPACE}/pods/(.+)-node-([0-9]+)/log", path):
                pods_of = found.nodes.get(found_log[1])
                self.follow(pods_of[int(found_log[2])]) if pods_of else self.refuse(404, "NotFound")
            elif found_pod := re.fullmatch(f"/api/v1/namespaces/{NAMESPACE}/pods/(.+)", path):
                self.answer_launcher(found_pod[1])
            else:
                self.refuse(404, "NotFound")

        def follow(self, pod: Pod) -> None:
            """The log of the container that a pod has now, line by line with its time, until it ends or is cut."""
            assert "follow=True" in self.path and "timestamps=True" in self.path
            process, restarts = pod.process, pod.restarts - ("previous=True" in self.path)
            cut = found.cuts.pop(0) if found.cuts else None
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            sent = 0
            while True:
                over = process.poll() is not None or restarts < pod.restarts
                lines = pod.log_of(restarts).read_bytes().splitlines(keepends=True)
                for line in lines[sent:] if over else [line for line in lines[sent:] if line.endswith(b"\n")]:
                    if sent == cut:
                        self.close_connection = True
                        return
                    chunk = f"2026-01-01T00:{restarts:02}:00.{sent:09}Z ".encode() + line
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    sent += 1
                if over:
                    break
                found.tend()  # a node that fails takes the others with it
                time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")

        def answer_launcher(self, name: str) -> None:
            if "GET pods" in found.forbidden:
                self.refuse(403, "Forbidden")
            elif name not in found.launchers:
                self.refuse(404, "NotFound")
            else:
                uid = found.launchers[name]
                owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": f"run-{uid}", "uid": uid}
                owners = [{**owner, "controller": True, "blockOwnerDeletion": True}]
                spec = {"containers": [{"name": "main", "image": "natix"}]}
                self.answer_json({"metadata": {"name": name, "ownerReferences": owners}, "spec": spec})

        def do_POST(self) -> None:
            job = self.body()
            known = models.TrainerV1alpha1TrainJob.from_dict(job)
            assert known is not None and known.to_dict() == job, "a field that the API does not know"
            if found.refusals:
                self.refuse(*found.refusals.pop(0))
                return
            with found.lock:
                if found.rival:
                    found.rival = False
                    found.create(json.loads(json.dumps(job)))
                if job["metadata"]["name"] in found.jobs:
                    self.refuse(409, "AlreadyExists")
                    return
                found.create(job)
            self.answer_json(job)

        def do_PATCH(self) -> None:
            changes = self.body()
            assert self.headers["Content-Type"] == "application/merge-patch+json" and changes.keys() == {"metadata"}
            name = urlsplit(self.path).path.rsplit("/", 1)[1]
            with found.lock:
                if "PATCH trainjobs" in found.forbidden:
                    self.refuse(403, "Forbidden")
                elif name not in found.jobs:
                    self.refuse(404, "NotFound")
                elif (refused := found.patch(name, changes["metadata"]))[0] != 200:
                    self.refuse(*refused)
                else:
                    self.answer_json(found.jobs[name])

        def do_DELETE(self) -> None:
            name = urlsplit(self.path).path.rsplit("/", 1)[1]
            conditions = self.body().get("preconditions", {})
            with found.lock:
                if name not in found.jobs:
                    self.refuse(404, "NotFound")
                    return
                metadata = found.jobs[name]["metadata"]
                if any(metadata[key] != value for key, value in conditions.items()):
                    self.refuse(409, "Conflict")
                    return
                found.delete(name)
            self.answer_json({"kind": "Status", "status": "Success"})

        def body(self) -> dict[str, Any]:
            sent: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
            return sent

        def refuse(self, status: int, reason: str, message: str = "") -> None:
            told = {"kind": "Status", "reason": reason, "message": message, "code": status}
            self.answer(status, json.dumps(told).encode(), {})

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
                found.delete(name, grace=0.0)


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
