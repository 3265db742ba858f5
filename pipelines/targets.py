"""What differs between kubeflow, vertex and local, in one place; every number comes from `config.Hardware`.

`kubeflow` puts GPU steps on labelled and tainted node pools, gives the data loader a `/dev/shm` in memory, and fetch
its HF_TOKEN from a secret. `vertex` takes one YAML document, so nothing of kfp-kubernetes may be used: it knows
accelerators by its own names, has no timeout of a task, no `/dev/shm` to set, and fetch reads the token in code, from
Secret Manager. `local` sets no resource, and names an image after the hash of this project's code: KFP's local cache
looks at the image's name and would otherwise serve what older code has made.

A step that a second attempt can help, `contracts.Step.retried`, is tried again after a wait that doubles: one on a GPU
node, which may be reclaimed, and one that reads what lies outside of the run. The others compute from what they are
given, so their errors come again, and a mistyped config would be red only after minutes. export is one of them although
it may publish over a network: storage repeats each of its requests for minutes by itself, most of its errors are
verdicts on the classifier, and the same submission goes on from the cache at export, in seconds. A pod whose node is
reclaimed ends as failed and is tried again like any other; one that is deleted, by a drain, is an error of Argo's,
which KFP does not retry: submit the run again, its cache and `explora.checkpoint_root` go on from there.
`backoff_max_duration` is set, because Argo counts it from the start of the first attempt: with KFP's default of an
hour, a step that has run longer is not tried again, and a second attempt is killed at that hour. For Vertex the default
stays. A timeout is one attempt's, from the start of its pod.

With `num_nodes` above one, adapt and train become launchers on a CPU node: they make a TrainJob out of `nodes` and wait
for it as long as a GPU step may take.

A task's title needs a KFP server of 2.14 or newer: older ones look a task's outputs up by its title and do not find
them (kubeflow/pipelines #11938). KFP's local runner knows no titles.

No security context is set, although kfp-kubernetes has one. The images run as 65532 by themselves and KFP drops all
capabilities; a KFP server that does not know the field yet refuses the whole task, because it parses strictly.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kfp.dsl import PipelineTask

import natix_components
import natix_lib
from natix_components.images import CPU_IMAGE, GPU_IMAGE
from natix_lib import grammar
from natix_lib.config.hardware import Hardware, Nodes
from natix_lib.contracts import TASKS, step_of
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict, sha256_bytes
from natix_lib.steps.pod import NODE

KUBEFLOW, VERTEX, LOCAL = "kubeflow", "vertex", "local"
HF_SECRET_KEY = "token"  # the key, not the secret: kubectl create secret generic hf-token --from-literal=token=...
GPU_RESOURCE, GPU_NODE_LABEL = "nvidia.com/gpu", "cloud.google.com/gke-accelerator"
CHECK_TITLE = "Check the config"
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
        for image in (self.cpu_image, self.gpu_image):
            try:
                grammar.image_name(image)
            except ValueError as error:
                raise ConfigError(f"image {image!r} {error}") from error

    def image(self, step: str) -> str:
        """The image of a step's component; `check` is a CPU step."""
        return self.gpu_image if _is_gpu_step(step) else self.cpu_image

    def place(self, task: PipelineTask, step: str, hardware: Hardware, num_gpus: object) -> PipelineTask:
        """Give a step's task its image and resources.

        Args:
            task: The task to place.
            step: Name of the step that the task runs; `check` is a CPU step.
            hardware: What the config says of the hardware.
            num_gpus: The pipeline parameter with the GPU count, a text: the driver reads it as one, and a number
                would give no GPU and no error.
        """
        launcher = self.name != LOCAL and hardware.num_nodes > 1 and _is_gpu_step(step)
        gpu = _is_gpu_step(step) and hardware.num_gpus > 0 and not launcher
        task.set_container_image(self.cpu_image if launcher else self.image(step))
        if step_of(step) in hardware.uncached_steps:
            task.set_caching_options(False)
        if self.name == LOCAL:
            return task
        task.set_display_name(TASKS[step].title if step in TASKS else CHECK_TITLE)
        task.set_cpu_limit(hardware.gpu_cpu if gpu else hardware.cpu)
        task.set_memory_limit(hardware.gpu_memory if gpu else hardware.memory)
        if gpu:
            task.set_accelerator_type(self._accelerator(hardware))
            task.set_accelerator_limit(_as_text(num_gpus))
        timeout = _seconds(hardware.gpu_timeout_hours if _is_gpu_step(step) else hardware.timeout_hours)
        if hardware.retries and step in TASKS and TASKS[step].retried:
            waits = hardware.retry_wait_seconds * (2**hardware.retries - 1)
            window = f"{(hardware.retries + 1) * timeout + waits}s" if self.name == KUBEFLOW else None
            task.set_retry(hardware.retries, f"{hardware.retry_wait_seconds}s", 2.0, window)
        if self.name == KUBEFLOW:
            _place_on_kubernetes(task, step, hardware, gpu, timeout)
        return task

    def nodes(self, hardware: Hardware) -> JsonDict:
        """The TrainJob that computes for adapt and train, `hardware.Nodes`; {} when their own task does.

        Raises:
            ConfigError: If the target has no TrainJobs.
        """
        if hardware.num_nodes == 1 or self.name == LOCAL:
            return {}
        if self.name == VERTEX:
            raise ConfigError(
                f"hardware.num_nodes must be 1 for vertex, which has no TrainJobs, got {hardware.num_nodes}: "
                "use hardware.num_gpus, or target kubeflow"
            )
        nodes = Nodes(
            num_nodes=hardware.num_nodes,
            image=self.gpu_image,
            cpu=hardware.gpu_cpu,
            memory=hardware.gpu_memory,
            shared_memory=hardware.shared_memory,
            node_selector=_gpu_node_selector(hardware),
            tolerations=hardware.gpu_tolerations,
            timeout_hours=hardware.gpu_timeout_hours,
            shared_root=hardware.shared_root,
            runtime=hardware.training_runtime,
            service_account=hardware.service_account,
        )
        return nodes.model_dump(mode="json")

    def token_secret(self, hardware: Hardware) -> str:
        """The secret that fetch itself reads the hub's token from; "" where it comes as HF_TOKEN.

        Raises:
            ConfigError: If Secret Manager could hold no secret of that name.
        """
        if self.name != VERTEX or not hardware.hf_token_secret:
            return ""
        try:
            return grammar.secret_manager_name(hardware.hf_token_secret)
        except ValueError as error:
            raise ConfigError(f"hardware.hf_token_secret {error}, got {hardware.hf_token_secret!r}") from error

    def _accelerator(self, hardware: Hardware) -> str:
        if self.name == KUBEFLOW:
            return GPU_RESOURCE
        name = VERTEX_ACCELERATORS.get(hardware.accelerator)
        if name is None:
            known = ", ".join(VERTEX_ACCELERATORS)
            raise ConfigError(f"hardware.accelerator for vertex must be one of {known}, got {hardware.accelerator}")
        return name


def _is_gpu_step(step: str) -> bool:
    return step in TASKS and TASKS[step].gpu


def _seconds(hours: float) -> int:
    return max(1, math.ceil(hours * 3600))


def _gpu_node_selector(hardware: Hardware) -> dict[str, str]:
    return hardware.gpu_node_selector or {GPU_NODE_LABEL: hardware.accelerator}


def _place_on_kubernetes(task: PipelineTask, step: str, hardware: Hardware, gpu: bool, timeout: int) -> None:
    from kfp import kubernetes

    task.set_cpu_request(hardware.gpu_cpu if gpu else hardware.cpu)
    task.set_memory_request(hardware.gpu_memory if gpu else hardware.memory)
    kubernetes.set_timeout(task, timeout)
    kubernetes.use_field_path_as_env(task, NODE, "spec.nodeName")
    kubernetes.set_image_pull_policy(task, hardware.pull_policy)
    for label, value in (_gpu_node_selector(hardware) if gpu else hardware.node_selector).items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in hardware.gpu_tolerations if gpu else hardware.tolerations:
        kubernetes.add_toleration(task, **toleration.given())
    if gpu:
        kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit=hardware.shared_memory)
    if step == "fetch" and hardware.hf_token_secret:
        try:
            grammar.object_name(hardware.hf_token_secret)
        except ValueError as error:
            raise ConfigError(
                f"hardware.hf_token_secret for kubeflow {error}, got {hardware.hf_token_secret!r}"
            ) from error
        kubernetes.use_secret_as_env(task, hardware.hf_token_secret, {HF_SECRET_KEY: "HF_TOKEN"}, optional=True)


def _as_text(num_gpus: object) -> object:
    """A GPU count that is a text or a pipeline parameter of type text.

    Raises:
        ConfigError: If it is a number, or a parameter of another type.
    """
    type_name = getattr(num_gpus, "channel_type", type(num_gpus).__name__)
    if type_name not in ("STRING", "String", "str"):
        raise ConfigError(f"num_gpus must be a text parameter, a number would give no GPU: got {type_name}")
    return num_gpus


@cache
def local_target() -> Target:
    """The local target; its image is named by the hash of the project's code and must contain "python" for KFP."""
    folders = [Path(__file__).parent, *(Path(path) for p in (natix_lib, natix_components) for path in p.__path__)]
    image = f"natix-local-python:{code_sha256(folders)[:16]}"
    return Target(LOCAL, image, image)


def code_sha256(folders: list[Path]) -> str:
    """The hash, 64 hex digits, of the code and the pages' templates in the packages' folders, wherever they lie."""
    files = [
        f"{path.relative_to(folder).as_posix()} {sha256_bytes(path.read_bytes())}\n"
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".py", ".j2")
    ]
    return sha256_bytes("".join(files).encode())
