"""What differs between kubeflow, vertex and local, in one place: images, node pools, resources, secrets.

`kubeflow` asks for GPUs as a device-plugin resource on labelled and tainted node pools, gives the data loader a
`/dev/shm` in memory, and reads HF_TOKEN from a secret. `vertex` knows accelerators by its own names and takes one YAML
document only, so nothing of kfp-kubernetes may be used; a gated backbone is given to it as a `gs://` folder. `local`
sets no resource, and names an image after the hash of this project's code: KFP's local cache looks at the image's
name and would otherwise serve what older code has made.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kfp.dsl import PipelineTask

from components.images import CPU_IMAGE, GPU_IMAGE
from natix_lib.config import Hardware
from natix_lib.contracts import STEPS
from natix_lib.errors import ConfigError
from natix_lib.files import sha256_bytes

KUBEFLOW, VERTEX, LOCAL = "kubeflow", "vertex", "local"
HF_SECRET, HF_SECRET_KEY = "hf-token", "token"  # name and key, not the secret: kubectl create secret generic hf-token
GPU_RESOURCE, GPU_NODE_LABEL = "nvidia.com/gpu", "cloud.google.com/gke-accelerator"
SHARED_MEMORY = "8Gi"
RETRIES = 2  # preemptible node pools
VERTEX_ACCELERATORS = {
    "nvidia-l4": "NVIDIA_L4",
    "nvidia-tesla-t4": "NVIDIA_TESLA_T4",
    "nvidia-tesla-a100": "NVIDIA_TESLA_A100",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB",
    "nvidia-h100-80gb": "NVIDIA_H100_80GB",
}


@dataclass(frozen=True)
class Target:
    """Where a pipeline is to run."""

    name: str
    cpu_image: str = CPU_IMAGE
    gpu_image: str = GPU_IMAGE

    def __post_init__(self) -> None:
        """Refuse an unknown name."""
        if self.name not in (KUBEFLOW, VERTEX, LOCAL):
            raise ConfigError(f"target must be {KUBEFLOW}, {VERTEX} or {LOCAL}, got {self.name!r}")

    def place(self, task: PipelineTask, step: str, hardware: Hardware, num_gpus: object) -> PipelineTask:
        """Give a step's task its image and resources.

        Args:
            task: The task.
            step: Its step; `check` is a CPU step.
            hardware: What the config asks for.
            num_gpus: The pipeline parameter with the GPU count, a text: the driver reads it as one, and a number
                would give no GPU and no error.
        """
        gpu = step in STEPS and STEPS[step].gpu and hardware.num_gpus > 0
        task.set_container_image(self.gpu_image if step in STEPS and STEPS[step].gpu else self.cpu_image)
        if self.name == LOCAL:
            return task
        task.set_cpu_limit(hardware.gpu_cpu if gpu else hardware.cpu)
        task.set_memory_limit(hardware.gpu_memory if gpu else hardware.memory)
        task.set_retry(RETRIES, backoff_duration="60s", backoff_factor=2.0)
        if gpu:
            task.set_accelerator_type(self._accelerator(hardware))
            task.set_accelerator_limit(_as_text(num_gpus))
        if self.name == KUBEFLOW:
            self._place_on_kubernetes(task, step, hardware, gpu)
        return task

    def _accelerator(self, hardware: Hardware) -> str:
        if self.name == KUBEFLOW:
            return GPU_RESOURCE
        name = VERTEX_ACCELERATORS.get(hardware.accelerator)
        if name is None:
            known = ", ".join(VERTEX_ACCELERATORS)
            raise ConfigError(f"hardware.accelerator for vertex must be one of {known}, got {hardware.accelerator}")
        return name

    @staticmethod
    def _place_on_kubernetes(task: PipelineTask, step: str, hardware: Hardware, gpu: bool) -> None:
        from kfp import kubernetes

        if gpu:
            kubernetes.add_node_selector(task, GPU_NODE_LABEL, hardware.accelerator)
            kubernetes.add_toleration(task, key=GPU_RESOURCE, operator="Exists", effect="NoSchedule")
            kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit=SHARED_MEMORY)
        if step == "fetch":
            kubernetes.use_secret_as_env(task, HF_SECRET, {HF_SECRET_KEY: "HF_TOKEN"}, optional=True)


def _as_text(num_gpus: object) -> object:
    """A GPU count that is a text or a pipeline parameter of type text.

    Raises:
        ConfigError: If it is a number, or a parameter of another type.
    """
    kind = getattr(num_gpus, "channel_type", type(num_gpus).__name__)
    if kind not in ("STRING", "String", "str"):
        raise ConfigError(f"num_gpus must be a text parameter, a number would give no GPU: got {kind}")
    return num_gpus


@cache
def local_target() -> Target:
    """The local target; its image is named by the hash of the project's code and must contain "python" for KFP."""
    root = Path(__file__).parent.parent
    files = sorted(
        path
        for package in ("natix_lib", "components", "pipelines")
        for path in (root / package).rglob("*")
        if path.suffix in (".py", ".j2")
    )
    names = "".join(f"{path.relative_to(root).as_posix()} {sha256_bytes(path.read_bytes())}\n" for path in files)
    image = f"natix-local-python:{sha256_bytes(names.encode())[:16]}"
    return Target(LOCAL, image, image)
