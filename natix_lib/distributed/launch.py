"""Where a step computes: in this process, in one for each GPU, or on several nodes.

The computing of a step is a function of a worker module, which every process calls; the first one's answer is the
step's. With one process it is given the settings and inputs that the step has parsed and opened already. With more, the
worker module is what they run (`python -m`), each parses and opens them itself, and the module ends with `be_a_process`
when it is the main one.

Who starts them has checked the inputs' hashes, the step for its own machine and `natix_lib.distributed.node` for a
node, so that it is done once and not once for each GPU: a worker checks none.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from natix_lib.config.hardware import Nodes
from natix_lib.config.section import Section
from natix_lib.distributed.exchange import Answer
from natix_lib.distributed.processes import compute_in_processes, say_device


def launch(
    step: str,
    worker: str,
    compute: Callable[[], Answer],
    settings: Section,
    inputs: Mapping[str, str],
    num_gpus: int,
    nodes: Nodes | None,
) -> Answer:
    """Compute for a step.

    Args:
        step: The step's name, for the name of a TrainJob.
        worker: Name of the step's worker module, which other processes run.
        compute: Computes in this process, with what the step has opened.
        settings: The step's settings, which other processes are given as JSON.
        inputs: Paths of its input artifacts, by their names in `contracts.STEPS`; their hashes have been checked.
        num_gpus: Processes of a machine, one a GPU; a machine without a GPU takes one.
        nodes: Compute as a TrainJob on these nodes; None computes on this machine.

    Returns:
        Tensors by name, on the CPU, and figures as JSON.

    Raises:
        NatixError: What a process has raised.
        TrainingError: If a process ended without a reason.
    """
    values = settings.model_dump(mode="json", exclude_none=True)
    if nodes:
        from natix_lib.distributed.trainjob import compute_on_nodes  # needs a package that few installations have

        return compute_on_nodes(step, worker, values, inputs, num_gpus, nodes)
    say_device(num_gpus)
    processes = processes_for(num_gpus, None)
    if processes == 1:
        return compute()
    with tempfile.TemporaryDirectory() as scratch:
        return compute_in_processes(worker, values, inputs, Path(scratch), processes)


def processes_for(num_gpus: int, nodes: Nodes | None) -> int:
    """How many processes `launch` starts in all."""
    if nodes:
        return nodes.num_nodes * max(1, num_gpus)
    return max(1, num_gpus) if torch.cuda.is_available() else 1
