"""torchrun's processes on one machine, which compute what the `request.json` of a folder asks.

torchrun and its processes end with the step. A step that is told to stop tells torchrun, which tells its processes
and waits for them, so that they write a checkpoint; torchrun has a session of its own, because a signal that an
orchestrator sends to a whole process group would reach it twice and cut that wait short. A step that is killed
closes the pipe that the processes have as stdin, which they take as SIGTERM.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from natix_lib.distributed.exchange import INPUTS, REQUEST, Answer, Compute, answer, leave_answer, leave_reason
from natix_lib.distributed.world import World
from natix_lib.errors import NatixError
from natix_lib.files import read_json, write_json
from natix_lib.progress import DEVICE
from natix_lib.stopping import stoppable

GRACE_SECONDS = 25.0  # for a checkpoint after SIGTERM; Kubernetes gives a pod 30


def compute_in_processes(
    worker: str, settings: Mapping[str, Any], inputs: Mapping[str, str], folder: Path, processes: int
) -> Answer:
    """Compute in processes of this machine.

    Args:
        worker: Name of the module that each process runs; it calls `be_a_process`.
        settings: The step's settings, as JSON.
        inputs: Paths of its input artifacts by name.
        folder: An empty folder for the request and the answer.
        processes: How many to start.

    Returns:
        Tensors by name, on the CPU, and figures as JSON.

    Raises:
        NatixError: What a process has raised.
        TrainingError: If a process ended without a reason.
    """
    write_json(folder / REQUEST, {"settings": dict(settings), INPUTS: dict(inputs)})
    return answer(folder, torchrun(worker, folder, "--standalone", f"--nproc-per-node={processes}"))


def say_device(num_gpus: int) -> None:
    """Say on what is computed, and when GPUs were asked for and none is here: no CUDA makes no other sign."""
    if torch.cuda.is_available():
        device = f"cuda, {max(1, num_gpus)} x {torch.cuda.get_device_name()}"
    else:
        threads = torch.get_num_threads()
        device = f"cpu, {threads} thread{'s'[: threads != 1]}{', no GPU found' if num_gpus else ''}"
    print(f"{DEVICE}{device}", flush=True)


def torchrun(worker: str, folder: Path, *options: str) -> int:
    """Let processes of the module `worker` do what `folder` asks; gives torchrun's exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", worker, str(folder)]
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


def be_a_process(compute: Compute) -> NoReturn:
    """Be one of the processes: compute what the folder on the command line asks, and leave the answer or the reason."""
    _end_with_step()
    folder = Path(sys.argv[1])
    request = read_json(folder / REQUEST)
    torch.set_flush_denormal(True)
    try:
        tensors, figures = compute(request["settings"], request[INPUTS])
        if World.from_environment().first:
            leave_answer(folder, tensors, figures)
    except NatixError as error:
        leave_reason(folder, error)
        leave(2)
    leave(0)


def _end_with_step() -> None:
    """End this process when the step has, in a thread that waits for the end of stdin."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End at once: all is on disk, and threads of gloo can abort an interpreter that takes itself down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
