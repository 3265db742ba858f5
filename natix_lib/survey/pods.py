"""What the pod of a step asks of a Kubernetes cluster, said once.

`pipelines/targets.py` asks for it, `capacity.py` looks whether it can be had; two tables of the same
would part. Which steps mount a volume and which open the store is said here for the same reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from natix_lib.config.hardware import CHECK, Hardware, Toleration, Volume
from natix_lib.contracts import TASKS, step_of

GPU_RESOURCE, GPU_NODE_LABEL = "nvidia.com/gpu", "cloud.google.com/gke-accelerator"


@dataclass(frozen=True)
class Pod:
    """What one pod asks for.

    Attributes:
        cpu: CPUs, as Kubernetes writes them; request and limit are the same.
        memory: Bytes of memory, likewise.
        gpus: GPUs; 0 for none.
        node_selector: Labels that its node must have.
        tolerations: Taints that its node may have.
        prefix: What the keys of the config that say so begin with: "hardware.gpu_" or "hardware.".
    """

    cpu: str
    memory: str
    gpus: int
    node_selector: dict[str, str]
    tolerations: list[Toleration]
    prefix: str


def is_gpu_step(task: str) -> bool:
    """Whether a task is a step that asks for GPUs."""
    return task in TASKS and TASKS[task].gpu


def is_launcher(task: str, hardware: Hardware) -> bool:
    """Whether a task makes a TrainJob and waits for it, on a CPU node."""
    return hardware.num_nodes > 1 and is_gpu_step(task)


def pod_of(task: str, hardware: Hardware) -> Pod:
    """What a task's own pod asks for; that of `check` is a CPU step's."""
    if is_gpu_step(task) and hardware.num_gpus > 0 and not is_launcher(task, hardware):
        return gpu_pod(hardware)
    return Pod(hardware.cpu, hardware.memory, 0, hardware.node_selector, hardware.tolerations, "hardware.")


def gpu_pod(hardware: Hardware) -> Pod:
    """What a GPU step's pod asks for, and each node of a TrainJob."""
    selector = hardware.gpu_node_selector or {GPU_NODE_LABEL: hardware.accelerator}
    cpu, memory, gpus = hardware.gpu_cpu, hardware.gpu_memory, hardware.num_gpus
    return Pod(cpu, memory, gpus, selector, hardware.gpu_tolerations, "hardware.gpu_")


def volumes_of(task: str, hardware: Hardware) -> list[Volume]:
    """The volumes that a task mounts; check, which looks at all sources, those of every step that reads one."""
    mounting = {task} if task != CHECK else {CHECK, *(name for name in TASKS if TASKS[name].fingerprint)}
    steps = {step_of(name) for name in mounting}
    return [volume for volume in hardware.volumes if not volume.steps or steps.intersection(volume.steps)]


def volumes_of_nodes(hardware: Hardware) -> list[Volume]:
    """The volumes that the nodes of a TrainJob mount, those of any GPU step."""
    return [volume for volume in hardware.volumes if any(volume in volumes_of(task, hardware) for task in gpu_tasks())]


def gpu_tasks() -> Iterable[str]:
    """The tasks that ask for GPUs."""
    return (task for task in TASKS if is_gpu_step(task))


def opens_store(task: str) -> bool:
    """Whether a task may open an address of the config: check, sources, checkpoints, shared_root and publishing."""
    return task in (CHECK, "export", "renew") or TASKS[task].retried
