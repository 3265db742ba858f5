"""What a TrainJob's pods are beside their image and resources: a patch of the training runtime, in the SDK's words.

The keys of an s3:// store come as files of a mounted secret, which a node reads into its environment as it starts:
Trainer refuses variables of the container `node` in a patch, and the SDK takes no reference to a secret as the value
of one. Keys in the TrainJob itself were rejected, anyone who may read jobs would read them.
"""

import os
from pathlib import Path
from typing import Any

from natix_lib.config.hardware import STORE_SECRET_KEYS, Nodes, Volume

REPLICATED_JOB = CONTAINER = "node"  # of the training runtime `torch-distributed`
STORE_KEYS = Path("/run/natix-store")  # where a node finds the keys of its store
SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_POD = {"runAsNonRoot": True, **SECCOMP}  # what Pod Security's level restricted asks
RESTRICTED_CONTAINER = {**RESTRICTED_POD, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def job_options(nodes: Nodes) -> list[Any]:
    """What the SDK's `TrainerClient.train` is to be given for the place, volumes, labels and context of the nodes."""
    from kubeflow.trainer import options

    volumes, mounts = _volumes(nodes)
    pod = options.PodSpecPatch(
        service_account_name=nodes.service_account,
        node_selector=nodes.node_selector or None,
        tolerations=[toleration.given() for toleration in nodes.tolerations],
        image_pull_secrets=[{"name": name} for name in nodes.pull_secrets] or None,
        security_context=RESTRICTED_POD if nodes.restricted else None,
        volumes=volumes,
        containers=[
            options.ContainerPatch(
                name=CONTAINER,
                volume_mounts=mounts,
                security_context=RESTRICTED_CONTAINER if nodes.restricted else None,
            )
        ],
    )
    metadata = {"labels": nodes.labels, "annotations": nodes.annotations}
    metadata = {name: values for name, values in metadata.items() if values}
    template = options.PodTemplatePatch(metadata=metadata or None, spec=pod)
    job = options.JobTemplatePatch(spec=options.JobSpecPatch(template=template))
    jobs = options.JobSetSpecPatch(replicated_jobs=[options.ReplicatedJobPatch(REPLICATED_JOB, job)])
    patch = options.TrainingRuntimeSpecPatch(template=options.JobSetTemplatePatch(spec=jobs))
    own = [options.Labels(nodes.labels)] if nodes.labels else []
    own += [options.Annotations(nodes.annotations)] if nodes.annotations else []
    return [options.RuntimePatch(patch), *own]


def environment(nodes: Nodes) -> dict[str, str] | None:
    """Variables of the nodes' containers; None for none."""
    return {"AWS_ENDPOINT_URL": nodes.store_endpoint} if nodes.store_endpoint else None


def take_store_keys(folder: Path = STORE_KEYS) -> None:
    """Let this process and those that it starts use the keys of the store that its pod has mounted, if it has."""
    for name, variable in STORE_SECRET_KEYS.items():
        if (folder / name).is_file():
            os.environ[variable] = (folder / name).read_text(encoding="utf-8").strip()


def _volumes(nodes: Nodes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": nodes.shared_memory}}
    ]
    mounts: list[dict[str, Any]] = [{"name": "dshm", "mountPath": "/dev/shm"}]
    for number, volume in enumerate(nodes.volumes):
        source, mount = _mounted(volume, f"volume-{number}")
        volumes.append(source)
        mounts.append(mount)
    if nodes.store_secret:
        volumes.append({"name": "store-keys", "secret": {"secretName": nodes.store_secret}})
        mounts.append({"name": "store-keys", "mountPath": str(STORE_KEYS), "readOnly": True})
    return volumes, mounts


def _mounted(volume: Volume, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    read_only = {"readOnly": True} if volume.read_only else {}
    claim = {"claimName": volume.claim, **read_only}
    return {"name": name, "persistentVolumeClaim": claim}, {"name": name, "mountPath": volume.path, **read_only}
