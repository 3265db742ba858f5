"""What this machine can compute with, and the backbone that suits it.

A frozen backbone is only ever run forward, so that memory rules few out: with a batch of 32 at 224 pixels in float32
a ViT-S took .35 GB and a ViT-B .8 GB, weights included (PyTorch 2 on a CPU, peak of the process over its start). What
differs is time, some four times from one to the next, so without a GPU the small one is taken. DINOv3 is never taken
unasked: it is gated, and a first run that ends at a licence is no first run.
"""

import importlib.util
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from natix_lib.cpus import cpu_threads

GIB = 1 << 30
ENOUGH = 4 * GIB  # GPU memory for the base model: its .8 GB, CUDA's own, and a desktop beside it
SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
SMI_SECONDS = 10


@dataclass(frozen=True)
class Backbone:
    """A backbone that natix reads.

    Attributes:
        name: Its id on the hub.
        parameters: In millions, as the DINOv2 and DINOv3 repositories list them.
        gated: The DINOv3 of the same size on the hub, for which a licence must be accepted.
    """

    name: str
    parameters: int
    gated: str


SMALL = Backbone("facebook/dinov2-small", 21, "facebook/dinov3-vits16-pretrain-lvd1689m")
BASE = Backbone("facebook/dinov2-base", 86, "facebook/dinov3-vitb16-pretrain-lvd1689m")


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, and its memory in bytes."""

    name: str
    memory: int

    def __str__(self) -> str:
        return f"{self.name} with {self.memory / GIB:.0f} GiB"


@dataclass(frozen=True)
class Machine:
    """What can compute here.

    Attributes:
        cpus: CPUs that this process may use.
        gpus: The GPUs.
        source: Who was asked for them: "torch" or "nvidia-smi".
        has_token: Whether a token for the hub is set.
    """

    cpus: int
    gpus: list[Gpu]
    source: str
    has_token: bool

    def __str__(self) -> str:
        return f"{self.cpus} CPUs, {', '.join(map(str, self.gpus)) or 'no GPU'} (asked {self.source})"

    @property
    def backbone(self) -> Backbone:
        """The backbone that suits it."""
        return BASE if self.gpus and min(gpu.memory for gpu in self.gpus) >= ENOUGH else SMALL


def this_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """Ask torch where it is installed, because it is what trains, and the driver's own program elsewhere."""
    has_torch = importlib.util.find_spec("torch") is not None
    gpus = gpus_of_torch() if has_torch else gpus_of_driver()
    return Machine(cpu_threads(), gpus, "torch" if has_torch else SMI[0], bool(environment.get("HF_TOKEN")))


def gpus_of_torch() -> list[Gpu]:
    """The GPUs that torch sees, which must be installed."""
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [Gpu(device.name, device.total_memory) for device in devices]


def gpus_of_driver() -> list[Gpu]:
    """The GPUs that the driver's own program sees; none where it is not here or does not answer."""
    try:
        answer = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line.rpartition(",") for line in answer.splitlines()]
    return [Gpu(name.strip(), int(mib) << 20) for name, _, mib in lines if mib.strip().isdecimal()]
