"""The config section `hardware`: what the steps ask of a cluster; `pipelines/targets.py` applies it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from natix_lib.contracts import STEPS
from natix_lib.section import Section


class Toleration(Section):
    """A Kubernetes toleration."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    def given(self) -> dict[str, str]:
        """The fields that say something, as Kubernetes takes them."""
        return {name: value for name, value in self.model_dump().items() if value}


class Hardware(Section):
    """What the steps ask of a cluster; on a machine without a GPU the GPU steps run on the CPU and say so."""

    num_gpus: NonNegativeInt = 1  # of a node; adapt and train compute on all of them
    num_nodes: PositiveInt = 1  # of adapt and train; more than one run as a Kubeflow TrainJob
    accelerator: str = "nvidia-l4"  # node-pool label on GKE; Vertex name derived from it
    cpu: str = "4"
    memory: str = "16Gi"
    gpu_cpu: str = "8"
    gpu_memory: str = "32Gi"
    shared_memory: str = "8Gi"  # /dev/shm of GPU steps: the data loader's processes need more than Docker's 64 MiB
    node_selector: dict[str, str] = Field(default_factory=dict)  # of CPU steps
    tolerations: list[Toleration] = Field(default_factory=list)
    gpu_node_selector: dict[str, str] = Field(
        default_factory=dict
    )  # {} takes cloud.google.com/gke-accelerator: accelerator
    gpu_tolerations: list[Toleration] = Field(
        default_factory=lambda: [Toleration(key="nvidia.com/gpu", effect="NoSchedule")]
    )  # the taint that GKE and the NVIDIA GPU operator put on GPU nodes
    retries: NonNegativeInt = 2  # of a step that failed or was preempted
    retry_wait_seconds: PositiveInt = 60  # before the first retry, doubled before each further one
    timeout_hours: PositiveFloat = 6.0  # of a CPU step
    gpu_timeout_hours: PositiveFloat = 72.0
    uncached_steps: list[str] = Field(default_factory=list)  # run anew even when nothing they read has changed
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"  # enough for digests
    hf_token_secret: str = "hf-token"  # Kubernetes secret with the key token, or id in Secret Manager; "" for none
    shared_root: str = ""  # gs:// prefix through which the nodes of a TrainJob get their inputs
    training_runtime: str = "torch-distributed"  # of Kubeflow Trainer
    service_account: str = "pipeline-runner"  # of the pods of a TrainJob; the one that KFP runs its own with

    @field_validator("uncached_steps")
    @classmethod
    def _check_steps(cls, names: list[str]) -> list[str]:
        if unknown := sorted(set(names) - set(STEPS)):
            raise ValueError(f"hardware.uncached_steps must be among {', '.join(STEPS)}, got {unknown}")
        return names

    @model_validator(mode="after")
    def _check(self) -> "Hardware":
        if self.num_nodes > 1 and not self.shared_root.startswith("gs://"):
            raise ValueError(
                f"hardware.shared_root must be a gs:// prefix when hardware.num_nodes is {self.num_nodes}, "
                f"got {self.shared_root!r}"
            )
        if self.num_nodes > 1 and not self.num_gpus:
            raise ValueError(f"hardware.num_gpus must be at least 1 when hardware.num_nodes is {self.num_nodes}, got 0")
        return self


class Nodes(Section):
    """The TrainJob that computes for adapt or train; made from `Hardware` when the pipeline is compiled."""

    num_nodes: Annotated[int, Field(ge=2)]
    image: str
    cpu: str  # cpu, memory and shared_memory of each node
    memory: str
    shared_memory: str
    node_selector: dict[str, str]
    tolerations: list[Toleration]
    timeout_hours: PositiveFloat
    shared_root: str
    runtime: str
    service_account: str
