"""What adapt and train compute, wherever they do: in this process, in one for each GPU, or on several nodes.

The computing of a step is a function `compute(settings, inputs)` of its worker module, which every process calls; the
first one's answer is the step's. With one process it is called directly. With more, the question is a folder with a
`request.json` that torchrun's processes read, and the answer is tensors and facts in the same folder, or the reason
of a failure, which is raised again as what it was. A TrainJob's nodes do the same with folders of their own
(`natix_lib.distributed.node`).

torchrun and its processes end with the step. A step that is told to stop tells torchrun, which tells its processes
and waits for them, so that adapt writes a checkpoint; torchrun has a session of its own, because a signal that an
orchestrator sends to a whole process group would reach it twice and cut that wait short. A step that is killed
closes the pipe that the processes have as stdin, which they take as SIGTERM.
"""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from natix_lib import errors
from natix_lib.config.hardware import Nodes
from natix_lib.distributed.world import World
from natix_lib.errors import NatixError, TrainingError
from natix_lib.files import JsonDict, read_json, write_json
from natix_lib.stopping import stoppable

WORKERS = {"adapt": "natix_lib.explora.worker", "train": "natix_lib.training.worker"}
GRACE_SECONDS = 25.0  # for a checkpoint after SIGTERM; Kubernetes gives a pod 30
REQUEST, TENSORS, FACTS, FAULT = "request.json", "tensors.safetensors", "facts.json", "fault.json"

Answer = tuple[dict[str, Tensor], JsonDict]


def compute(
    step: str, settings: Mapping[str, Any], inputs: Mapping[str, str], num_gpus: int, nodes: Nodes | None
) -> Answer:
    """Compute for a step.

    Args:
        step: `adapt` or `train`.
        settings: The step's, as JSON.
        inputs: Paths of its input artifacts, by their names in `contracts.STEPS`.
        num_gpus: Processes of a machine, one a GPU; a machine without a GPU takes one.
        nodes: Compute as a TrainJob on these nodes; None computes on this machine.

    Returns:
        Tensors by name, on the CPU, and facts as JSON.

    Raises:
        NatixError: What a process has raised.
        TrainingError: If a process ended without a reason.
    """
    if nodes:
        from natix_lib.distributed.trainjob import compute_on_nodes

        return compute_on_nodes(step, settings, inputs, num_gpus, nodes)
    say_when_no_gpu(num_gpus)
    processes = processes_for(num_gpus, None)
    if processes == 1:
        found: Answer = _worker(step).compute(settings, inputs)
        return found
    with tempfile.TemporaryDirectory() as scratch:
        return compute_in_processes(step, settings, inputs, Path(scratch), processes)


def processes_for(num_gpus: int, nodes: Nodes | None) -> int:
    """How many processes `compute` starts in all."""
    if nodes:
        return nodes.num_nodes * max(1, num_gpus)
    return max(1, num_gpus) if torch.cuda.is_available() else 1


def say_when_no_gpu(num_gpus: int) -> None:
    """Say that a GPU was asked for and is not here: a driver or an image that lacks CUDA makes no other sign."""
    if num_gpus and not torch.cuda.is_available():
        print("no GPU found: computing on the CPU", flush=True)


def compute_in_processes(
    step: str, settings: Mapping[str, Any], inputs: Mapping[str, str], folder: Path, processes: int
) -> Answer:
    """Compute in processes of this machine, with `folder` for the request and the answer; see `compute`."""
    write_json(folder / REQUEST, {"step": step, "settings": dict(settings), "inputs": dict(inputs)})
    return answer(folder, torchrun(folder, "--standalone", f"--nproc-per-node={processes}"))


def torchrun(folder: Path, *options: str) -> int:
    """Let torchrun's processes do what `folder` asks; gives the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", __name__, str(folder)]
    with stoppable(), subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            return process.wait()
        except SystemExit:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # its processes then see the end of their stdin
            raise


def answer(folder: Path, code: int) -> Answer:
    """The answer in a folder, of processes that ended with `code`.

    Raises:
        NatixError: The reason that a process has left.
        TrainingError: If none has.
    """
    if (folder / FAULT).is_file():
        found = read_json(folder / FAULT)
        kind: Any = getattr(errors, found["kind"], NatixError)
        error: NatixError = kind(found["message"])
        raise error
    if code or not (folder / FACTS).is_file():
        raise TrainingError(f"a training process ended with exit code {code} and gave no reason")
    return load_file(folder / TENSORS), read_json(folder / FACTS)


def leave_reason(folder: Path, error: NatixError) -> None:
    """Leave why there is no answer, for `answer`."""
    write_json(folder / FAULT, {"kind": type(error).__name__, "message": str(error)})


def _worker(step: str) -> Any:
    return importlib.import_module(WORKERS[step])


def _end_with_step() -> None:
    """End this process when the step has, in a thread that waits for the end of stdin."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Be one of the processes: compute, and leave the answer or the reason in the folder."""
    _end_with_step()
    folder = Path(sys.argv[1])
    request = read_json(folder / REQUEST)
    torch.set_flush_denormal(True)
    try:
        tensors, facts = _worker(request["step"]).compute(request["settings"], request["inputs"])
        if World.from_environment().first:
            save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS)
            write_json(folder / FACTS, facts)
    except NatixError as error:
        leave_reason(folder, error)
        _leave(2)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """End at once: all is on disk, and threads of gloo can abort an interpreter that takes itself down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
