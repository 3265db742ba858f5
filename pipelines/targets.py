"""What differs between kubeflow, vertex and local, in one place; every number comes from `config.Hardware`.

`kubeflow` puts GPU steps on labelled and tainted node pools, gives the data loader a `/dev/shm` in memory, and check
and fetch their HF_TOKEN from a secret. `vertex` takes one YAML document, so nothing of kfp-kubernetes may be used: it
knows accelerators by its own names, has no timeout of a task, no `/dev/shm` to set, and check and fetch read the token
in code, from Secret Manager. Of what only Kubernetes has it refuses volumes and the store's secret, without which a
step would not find its data, and ignores labels, annotations, pull secrets and `restricted`, as it does node selectors.
`local` sets no resource, and names an image after the hash of this project's code: KFP's local cache looks at the
image's name and would otherwise serve what older code has made.

A step that a second attempt can help, `contracts.Step.retried`, is tried again after a wait that doubles: one on a GPU
node, which may be reclaimed, and one that reads what lies outside of the run. So is check, which looks at all of that;
a mistake typed into the form is red only after minutes for it, and one line of its log after seconds, as `make submit`
says it at once. The others compute from what they are given, so their errors come again. export is one of them although
it may publish over a network: storage repeats each of its requests for minutes by itself, most of its errors are
verdicts on the classifier, and the same submission goes on from the cache at export, in seconds.

What "tried again" means is the installation's: `set_retry` of kfp 2.17 names no policy. KFP up to 2.16 leaves Argo its
own, by which a step that failed is repeated and a pod that was deleted, as a drain does, is not. KFP 2.17.0 installs
Argo with `templateDefaults.retryStrategy {limit: 2, retryPolicy: OnError}`, which takes the place of the missing word:
there a deleted pod is repeated and a failed step never is, and since the default reaches every level of the graph, an
error of Argo's that stays is tried up to three times a level. `manifests/components/retries` makes it both kinds, and
no level but ours; `natix doctor --cluster` says which of the three a cluster has. Because of them what can pass by
itself is repeated inside a step. A policy in `set_retry` is upstream pull request kubeflow/pipelines #13386; kfp 2.17.0
does not have it, so there is no key for it yet. Naming one by editing the compiled text was rejected: the server reads
no such field.

`backoff_max_duration` is set, because Argo counts it from the start of the first attempt: with KFP's default of an
hour, a step that has run longer is not tried again, and a second attempt is killed at that hour. For Vertex the default
stays. A timeout is one attempt's, from the start of its pod.

With `num_nodes` above one, adapt and train become launchers on a CPU node: they make a TrainJob out of `nodes` and wait
for it as long as a GPU step may take.

A task's title needs a KFP server of 2.14 or newer: older ones look a task's outputs up by its title and do not find
them (kubeflow/pipelines #11938). KFP's local runner knows no titles.

`hardware.restricted` sets `runAsNonRoot`, the one word of Pod Security's level restricted that KFP 2.17 does not say by
itself. It is off by default: the images run as 65532 anyway, and a server that does not know the field refuses the
whole task, because it parses strictly. kfp-kubernetes 2.17 mounts a claim writable and has no word for read-only.
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
from natix_lib.config.hardware import CHECK, STORE_SECRET_KEYS, Hardware, Nodes
from natix_lib.contracts import TASKS, step_of
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict, sha256_bytes
from natix_lib.steps.pod import NODE
from natix_lib.survey.pods import (
    GPU_RESOURCE,
    Pod,
    gpu_pod,
    is_gpu_step,
    is_launcher,
    opens_store,
    pod_of,
    volumes_of,
    volumes_of_nodes,
)

KUBEFLOW, VERTEX, LOCAL = "kubeflow", "vertex", "local"
HF_SECRET_KEY = "token"  # the key, not the secret: kubectl create secret generic hf-token --from-literal=token=...
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
        return self.gpu_image if is_gpu_step(step) else self.cpu_image

    def place(self, task: PipelineTask, step: str, hardware: Hardware, num_gpus: object) -> PipelineTask:
        """Give a step's task its image and resources.

        Args:
            task: The task to place.
            step: Name of the step that the task runs; `check` is a CPU step.
            hardware: What the config says of the hardware.
            num_gpus: The pipeline parameter with the GPU count, a text: the driver reads it as one, and to a parameter
                that is declared a number it would give no GPU and no error.
        """
        launcher = self.name != LOCAL and is_launcher(step, hardware)
        task.set_container_image(self.cpu_image if launcher else self.image(step))
        if step == CHECK or step_of(step) in hardware.uncached_steps:
            task.set_caching_options(False)
        if self.name == LOCAL:
            return task
        task.set_display_name(TASKS[step].title if step in TASKS else CHECK_TITLE)
        pod = pod_of(step, hardware)
        task.set_cpu_limit(pod.cpu)
        task.set_memory_limit(pod.memory)
        if pod.gpus:
            task.set_accelerator_type(self._accelerator(hardware))
            task.set_accelerator_limit(_as_text(num_gpus))
        timeout = _seconds(hardware.gpu_timeout_hours if is_gpu_step(step) else hardware.timeout_hours)
        if hardware.retries and (step == CHECK or TASKS[step].retried):
            waits = hardware.retry_wait_seconds * (2**hardware.retries - 1)
            window = f"{(hardware.retries + 1) * timeout + waits}s" if self.name == KUBEFLOW else None
            task.set_retry(hardware.retries, f"{hardware.retry_wait_seconds}s", 2.0, window)
        if self.name == KUBEFLOW:
            _place_on_kubernetes(task, step, hardware, pod, timeout)
        elif hardware.volumes or hardware.store_secret:
            key = "volumes" if hardware.volumes else "store_secret"
            raise ConfigError(f"hardware.{key} must be empty for vertex, whose steps have none: use target kubeflow")
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
            node_selector=gpu_pod(hardware).node_selector,
            tolerations=hardware.gpu_tolerations,
            timeout_hours=hardware.gpu_timeout_hours,
            shared_root=hardware.shared_root,
            runtime=hardware.training_runtime,
            service_account=hardware.service_account,
            volumes=volumes_of_nodes(hardware),
            store_secret=hardware.store_secret,
            store_endpoint=hardware.store_endpoint,
            pull_secrets=hardware.pull_secrets,
            labels=hardware.labels,
            annotations=hardware.annotations,
            restricted=hardware.restricted,
        )
        return nodes.model_dump(mode="json")

    def token_secret(self, hardware: Hardware) -> str:
        """The secret that check and fetch themselves read the hub's token from; "" where it comes as HF_TOKEN.

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


def _seconds(hours: float) -> int:
    return max(1, math.ceil(hours * 3600))


def _place_on_kubernetes(task: PipelineTask, step: str, hardware: Hardware, pod: Pod, timeout: int) -> None:
    from kfp import kubernetes

    task.set_cpu_request(pod.cpu)
    task.set_memory_request(pod.memory)
    kubernetes.set_timeout(task, timeout)
    kubernetes.use_field_path_as_env(task, NODE, "spec.nodeName")
    kubernetes.set_image_pull_policy(task, hardware.pull_policy)
    for label, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.given())
    if pod.gpus:
        kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit=hardware.shared_memory)
    if step in (CHECK, "fetch") and hardware.hf_token_secret:
        try:
            grammar.object_name(hardware.hf_token_secret)
        except ValueError as error:
            raise ConfigError(
                f"hardware.hf_token_secret for kubeflow {error}, got {hardware.hf_token_secret!r}"
            ) from error
        kubernetes.use_secret_as_env(task, hardware.hf_token_secret, {HF_SECRET_KEY: "HF_TOKEN"}, optional=True)
    _dress(task, step, hardware)


def _dress(task: PipelineTask, step: str, hardware: Hardware) -> None:
    """Give a task what a cluster of other people asks for: volumes, keys of a store, labels, a security context."""
    from kfp import kubernetes

    for volume in volumes_of(step, hardware):
        kubernetes.mount_pvc(task, volume.claim, volume.path)
    if opens_store(step):
        if hardware.store_secret:
            kubernetes.use_secret_as_env(task, hardware.store_secret, STORE_SECRET_KEYS)
        if hardware.store_endpoint:
            task.set_env_variable("AWS_ENDPOINT_URL", hardware.store_endpoint)
    if hardware.pull_secrets:
        kubernetes.set_image_pull_secrets(task, hardware.pull_secrets)
    for label, value in hardware.labels.items():
        kubernetes.add_pod_label(task, label, value)
    for annotation, value in hardware.annotations.items():
        kubernetes.add_pod_annotation(task, annotation, value)
    if hardware.restricted:
        kubernetes.set_security_context(task, run_as_non_root=True)


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
