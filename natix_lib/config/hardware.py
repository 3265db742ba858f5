"""The config section `hardware`: what the steps ask of a cluster; `pipelines/targets.py` applies it."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from natix_lib.config.key import default
from natix_lib.config.section import Section
from natix_lib.contracts import RENEWING, STEPS
from natix_lib.grammar import (
    PREFIXES,
    Address,
    Cpu,
    ImageName,
    LabelKey,
    LabelValue,
    Memory,
    MountPath,
    ObjectName,
    OptionalName,
    Place,
    SecretName,
    TaintKey,
    scheme,
)

Hours = Annotated[float, Field(gt=0.0, le=8760.0)]  # a year; Kubernetes counts the seconds in 64 bits

A_SMALL_NODE = "choice: half of a node of 8 CPUs and 32 GiB"
A_GPU_NODE = "choice: two thirds of a g2-standard-12 of GKE, 12 CPUs and 48 GiB beside one L4"
NOTHING_ASKED = "choice: nothing is asked for"
CHECK = "check"  # the task before all steps
STORE_SECRET_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}  # as KFP's own has them


class Toleration(Section):
    """A Kubernetes toleration: what lets a pod onto a tainted node."""

    key: TaintKey = default(
        "",
        'Key of the taint; "" with the operator Exists tolerates every taint.',
        source="library: Kubernetes' default",
    )
    operator: Literal["Exists", "Equal"] = default(
        "Exists",
        "Whether the taint must exist, or also have the value.",
        source="choice: a taint's key says enough; Kubernetes itself takes Equal",
    )
    value: LabelValue = default("", "Value of the taint, for Equal.", source="library: Kubernetes' default")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = default(
        "", 'Effect of the taint; "" is every effect.', source="library: Kubernetes' default"
    )

    @model_validator(mode="after")
    def _check(self) -> "Toleration":
        if self.operator == "Exists" and self.value:
            raise ValueError(
                f"a toleration with the value {self.value} must have operator: Equal, Exists takes any value"
            )
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration with operator: Equal must have a key")
        return self

    def given(self) -> dict[str, str]:
        """The fields that say something, as Kubernetes takes them."""
        return {name: value for name, value in self.model_dump().items() if value}


class Volume(Section):
    """A claim of the cluster that steps find as a folder."""

    claim: ObjectName = Field(description="Name of the PersistentVolumeClaim, in the namespace of the steps.")
    path: MountPath = Field(description="Folder that it is mounted at, such as /data.")
    read_only: bool = default(
        False,
        "Whether the nodes of a TrainJob mount it read-only; KFP 2.17 mounts every claim of a step writable, so what "
        "must stay as it is needs a claim that is itself read-only.",
        source="library: Kubernetes' default",
    )
    steps: list[str] = default(
        [],
        "Steps that mount it, check among them, which looks at what the config names; [] is all.",
        source="choice: a folder that is missing in one step is found late",
    )

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, names: list[str]) -> list[str]:
        return _known("hardware.volumes[].steps", names, (CHECK, *STEPS, *RENEWING))

    def holds(self, place: str) -> bool:
        """Whether a path lies on this volume."""
        return f"{place.rstrip('/')}/".startswith(f"{self.path.rstrip('/')}/")


class Hardware(Section):
    """What the steps ask of a cluster; on a machine without a GPU the GPU steps run on the CPU and say so."""

    num_gpus: NonNegativeInt = default(
        1,
        "GPUs of a node; adapt and train compute on all of them.",
        unit="GPUs",
        source="choice: the smallest that helps",
    )
    num_nodes: PositiveInt = default(
        1,
        "Nodes that adapt and train compute on; more than one run as a Kubeflow TrainJob.",
        unit="nodes",
        source="choice: several need Kubeflow Trainer",
    )
    accelerator: LabelValue = default(
        "nvidia-l4",
        "GPU, as GKE labels its node pools; Vertex's name is derived from it.",
        source="choice: the cheapest GPU of GKE and Vertex that computes in bfloat16",
    )
    cpu: Cpu = default("4", "CPUs of a CPU step.", unit="CPUs", source=A_SMALL_NODE)
    memory: Memory = default("16Gi", "Memory of a CPU step.", unit="bytes", source=A_SMALL_NODE)
    gpu_cpu: Cpu = default("8", "CPUs of a GPU step, and of each node of a TrainJob.", unit="CPUs", source=A_GPU_NODE)
    gpu_memory: Memory = default(
        "32Gi", "Memory of a GPU step, and of each node of a TrainJob.", unit="bytes", source=A_GPU_NODE
    )
    shared_memory: Memory = default(
        "8Gi",
        "Size of /dev/shm in GPU steps, through which the data loader's processes hand on images.",
        unit="bytes",
        source="choice: a quarter of the memory; Docker's 64 MiB are too few",
    )
    node_selector: dict[LabelKey, LabelValue] = default(
        {}, "Labels of the nodes that CPU steps run on; {} takes any node.", source=NOTHING_ASKED
    )
    tolerations: list[Toleration] = default([], "Taints that CPU steps tolerate.", source=NOTHING_ASKED)
    gpu_node_selector: dict[LabelKey, LabelValue] = default(
        {},
        "Labels of the nodes that GPU steps run on; {} takes cloud.google.com/gke-accelerator: accelerator.",
        source="library: the label that GKE gives its GPU nodes",
    )
    gpu_tolerations: list[Toleration] = default(
        [Toleration(key="nvidia.com/gpu", effect="NoSchedule")],
        "Taints that GPU steps tolerate.",
        source="library: the taint that GKE and the NVIDIA GPU operator put on GPU nodes",
    )
    retries: Annotated[int, Field(ge=0, le=10)] = default(
        2,
        "Times that check, ingest, split, fetch, adapt or train is tried again; ten wait for 17 hours. Whether a step "
        "that failed is, a pod that was deleted, or both, is the installation's, see docs/deploy.md. Other steps are "
        "not: their errors would come again.",
        unit="attempts",
        source="choice: nodes that can be preempted mostly are not three times in a row",
    )
    retry_wait_seconds: Annotated[int, Field(ge=1, le=86_400)] = default(
        60,
        "Wait before the first retry, doubled before each further one.",
        unit="seconds",
        source="choice: a new node takes about a minute to come",
    )
    timeout_hours: Hours = default(
        6.0, "Time that one attempt of a CPU step may take.", unit="hours", source="choice: a hanging step must end"
    )
    gpu_timeout_hours: Hours = default(
        72.0,
        "Time that one attempt of a GPU step, or a TrainJob, may take.",
        unit="hours",
        source="choice: a hanging step must end, a long adaptation must not",
    )
    uncached_steps: list[str] = default(
        [], "Steps that are run anew even when nothing that they read has changed.", source=NOTHING_ASKED
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = default(
        "IfNotPresent",
        "When a node pulls an image.",
        source="library: Kubernetes' default for tagged images; enough for digests",
    )
    hf_token_secret: SecretName = default(
        "hf-token",
        "Secret with the hub's token, a Kubernetes secret with the key token, or an id in Secret Manager; "
        '"" for none.',
        source="convention: the name in docs/deploy.md",
    )
    volumes: list[Volume] = default(
        [],
        "Claims that steps and the nodes of a TrainJob mount; Vertex has none and refuses them.",
        source=NOTHING_ASKED,
    )
    store_secret: OptionalName = default(
        "",
        "Secret with the keys accesskey and secretkey of an s3:// store, for the steps and nodes that open addresses; "
        "KFP's own is mlpipeline-minio-artifact. Empty where the account of the steps may read by itself; Vertex "
        "refuses it.",
        source="choice: an account with a role needs no keys",
    )
    store_endpoint: Address = default(
        "",
        "Address of another s3:// store than Amazon's, such as http://seaweedfs.kubeflow.svc:8333, which KFP brings; "
        "Vertex ignores it.",
        source="library: boto3 asks Amazon by itself",
    )
    pull_secrets: list[ObjectName] = default(
        [], "Secrets by which nodes pull the images from a private registry; Vertex ignores them.", source=NOTHING_ASKED
    )
    labels: dict[LabelKey, LabelValue] = default(
        {},
        "Labels of every step's pod, of a TrainJob and of its pods, such as kueue.x-k8s.io/queue-name; Vertex ignores "
        "them.",
        source=NOTHING_ASKED,
    )
    annotations: dict[LabelKey, str] = default(
        {}, "Annotations of the same, such as sidecar.istio.io/inject; Vertex ignores them.", source=NOTHING_ASKED
    )
    restricted: bool = default(
        False,
        "Whether pods say all that Pod Security's level restricted asks; KFP before 2.17 refuses such a task, and "
        "Vertex ignores it.",
        source="choice: works with older servers as well",
    )
    shared_root: Place = default(
        "",
        "Prefix in gs:// or s3://, or a folder of a volume, by which the nodes of a TrainJob get their inputs; needed "
        "if num_nodes is above 1.",
        source="choice: a place must be named by who owns it",
    )
    training_runtime: ObjectName = default(
        "torch-distributed",
        "Runtime of Kubeflow Trainer that a TrainJob is made from.",
        source="library: the PyTorch runtime that Kubeflow Trainer installs",
    )
    service_account: ObjectName = default(
        "pipeline-runner",
        "Service account of the pods of a TrainJob.",
        source="library: the account that KFP runs its own pods with",
    )

    @field_validator("uncached_steps")
    @classmethod
    def _check_steps(cls, names: list[str]) -> list[str]:
        return _known("hardware.uncached_steps", names, STEPS | RENEWING)

    @model_validator(mode="after")
    def _check(self) -> "Hardware":
        paths = [volume.path.rstrip("/") for volume in self.volumes]
        if len(set(paths)) < len(paths):
            raise ValueError(f"hardware.volumes must each have a path of its own, got {paths}")
        if self.num_nodes > 1 and not scheme(self.shared_root):
            self._check_shared_volume()
        if self.num_nodes > 1 and not self.num_gpus:
            raise ValueError(f"hardware.num_gpus must be at least 1 when hardware.num_nodes is {self.num_nodes}, got 0")
        return self

    def _check_shared_volume(self) -> None:
        holding = [volume for volume in self.volumes if volume.holds(self.shared_root) and not volume.read_only]
        if not holding:
            raise ValueError(
                f"hardware.shared_root must be a {PREFIXES} prefix, or lie on a writable one of hardware.volumes, when "
                f"hardware.num_nodes is {self.num_nodes}, got {self.shared_root!r}"
            )
        if not any(not volume.steps or {"adapt", "train"} <= set(volume.steps) for volume in holding):
            raise ValueError(
                f"hardware.shared_root {self.shared_root!r} must lie on a volume that adapt and train both mount, got "
                f"steps: {holding[0].steps} for {holding[0].path}"
            )


class Nodes(Section):
    """The TrainJob that computes for adapt or train; made from `Hardware` when the pipeline is compiled."""

    num_nodes: Annotated[int, Field(ge=2)]
    image: ImageName
    cpu: Cpu  # cpu, memory and shared_memory of each node
    memory: Memory
    shared_memory: Memory
    node_selector: dict[LabelKey, LabelValue]
    tolerations: list[Toleration]
    timeout_hours: Hours
    shared_root: Place
    runtime: ObjectName
    service_account: ObjectName
    volumes: list[Volume] = Field(default_factory=list)  # and what follows: as in Hardware
    store_secret: OptionalName = ""
    store_endpoint: Address = ""
    pull_secrets: list[ObjectName] = Field(default_factory=list)
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[LabelKey, str] = Field(default_factory=dict)
    restricted: bool = False


def _known(key: str, names: list[str], steps: Iterable[str]) -> list[str]:
    if unknown := sorted(set(names) - set(steps)):
        raise ValueError(f"{key} must be among {', '.join(steps)}, got {unknown}")
    return names
