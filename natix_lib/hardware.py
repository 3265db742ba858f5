"""The config section `hardware`: what the steps ask of a cluster; `pipelines/targets.py` applies it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from natix_lib.contracts import STEPS
from natix_lib.grammar import (
    PREFIXES,
    Cpu,
    ImageName,
    LabelKey,
    LabelValue,
    Memory,
    ObjectName,
    Place,
    SecretName,
    TaintKey,
    scheme,
)
from natix_lib.section import Section

Hours = Annotated[float, Field(gt=0.0, le=8760.0)]  # a year; Kubernetes counts the seconds in 64 bits


class Toleration(Section):
    """A Kubernetes toleration."""

    key: TaintKey = ""  # "" with Exists tolerates every taint
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

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


class Hardware(Section):
    """What the steps ask of a cluster; on a machine without a GPU the GPU steps run on the CPU and say so."""

    num_gpus: NonNegativeInt = 1  # of a node; adapt and train compute on all of them
    num_nodes: PositiveInt = 1  # of adapt and train; more than one run as a Kubeflow TrainJob
    accelerator: LabelValue = "nvidia-l4"  # node-pool label on GKE; Vertex name derived from it
    cpu: Cpu = "4"
    memory: Memory = "16Gi"
    gpu_cpu: Cpu = "8"
    gpu_memory: Memory = "32Gi"
    shared_memory: Memory = "8Gi"  # /dev/shm of GPU steps: the data loader's processes need more than Docker's 64 MiB
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)  # of CPU steps
    tolerations: list[Toleration] = Field(default_factory=list)
    gpu_node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict
    )  # {} takes cloud.google.com/gke-accelerator: accelerator
    gpu_tolerations: list[Toleration] = Field(
        default_factory=lambda: [Toleration(key="nvidia.com/gpu", effect="NoSchedule")]
    )  # the taint that GKE and the NVIDIA GPU operator put on GPU nodes
    retries: Annotated[int, Field(ge=0, le=10)] = 2  # of a step that failed or was preempted; ten wait for 17 hours
    retry_wait_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60  # before the first, doubled before each further one
    timeout_hours: Hours = 6.0  # of a CPU step
    gpu_timeout_hours: Hours = 72.0
    uncached_steps: list[str] = Field(default_factory=list)  # run anew even when nothing they read has changed
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"  # enough for digests
    hf_token_secret: SecretName = (
        "hf-token"  # Kubernetes secret with the key token, or id in Secret Manager; "" for none
    )
    shared_root: Place = ""  # gs:// prefix through which the nodes of a TrainJob get their inputs
    training_runtime: ObjectName = "torch-distributed"  # of Kubeflow Trainer
    service_account: ObjectName = "pipeline-runner"  # of the pods of a TrainJob; the one that KFP runs its own with

    @field_validator("uncached_steps")
    @classmethod
    def _check_steps(cls, names: list[str]) -> list[str]:
        if unknown := sorted(set(names) - set(STEPS)):
            raise ValueError(f"hardware.uncached_steps must be among {', '.join(STEPS)}, got {unknown}")
        return names

    @model_validator(mode="after")
    def _check(self) -> "Hardware":
        if self.num_nodes > 1 and not scheme(self.shared_root):
            raise ValueError(
                f"hardware.shared_root must be a {PREFIXES} prefix when hardware.num_nodes is {self.num_nodes}, "
                f"got {self.shared_root!r}"
            )
        if self.num_nodes > 1 and not self.num_gpus:
            raise ValueError(f"hardware.num_gpus must be at least 1 when hardware.num_nodes is {self.num_nodes}, got 0")
        return self


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
