"""Where a step computes: in this process, in one for each GPU, or on several nodes.

The computing of a step is a function `compute(settings, inputs)` of a worker module, which every process calls; the
first one's answer is the step's. With one process it is called directly. With more, the worker module is what they
run (`python -m`), so it ends with `be_a_process(compute)` when it is the main module.

Who starts them has checked the inputs' hashes, the step for its own machine and `natix_lib.distributed.node` for a
node, so that it is done once and not once for each GPU: a worker checks none.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from natix_lib.config.hardware import Nodes
from natix_lib.distributed.exchange import Answer, Compute
from natix_lib.distributed.processes import compute_in_processes, say_when_no_gpu


def launch(
    step: str,
    compute: Compute,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    num_gpus: int,
    nodes: Nodes | None,
) -> Answer:
    """Compute for a step.

    Args:
        step: The step's name, for the name of a TrainJob.
        compute: The function of the step's worker module, which every process calls.
        settings: The step's settings, as JSON.
        inputs: Paths of its input artifacts, by their names in `contracts.STEPS`; their hashes have been checked.
        num_gpus: Processes of a machine, one a GPU; a machine without a GPU takes one.
        nodes: Compute as a TrainJob on these nodes; None computes on this machine.

    Returns:
        Tensors by name, on the CPU, and figures as JSON.

    Raises:
        NatixError: What a process has raised.
        TrainingError: If a process ended without a reason.
    """
    if nodes:
        from natix_lib.distributed.trainjob import compute_on_nodes  # needs a package that few installations have

        return compute_on_nodes(step, compute.__module__, settings, inputs, num_gpus, nodes)
    say_when_no_gpu(num_gpus)
    processes = processes_for(num_gpus, None)
    if processes == 1:
        return compute(settings, inputs)
    with tempfile.TemporaryDirectory() as scratch:
        return compute_in_processes(compute.__module__, settings, inputs, Path(scratch), processes)


def processes_for(num_gpus: int, nodes: Nodes | None) -> int:
    """How many processes `launch` starts in all."""
    if nodes:
        return nodes.num_nodes * max(1, num_gpus)
    return max(1, num_gpus) if torch.cuda.is_available() else 1
