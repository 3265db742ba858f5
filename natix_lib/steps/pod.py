"""What a step says of itself in its pod's log: first where it is at work, last what it has written or why it ended.

A person looks there when a run is red. Python's own end, three tracebacks that lead to one another, hides the line
that matters; so an error of ours is that line alone, `error: ...`, and anything unexpected keeps its traceback. The
exit code is the same. The component's body could catch errors as well, but every component would say it once more and
the text of its function, which is in its cache key, would hold what is no contract. So it begins with this package,
which every body imports, when the main program is KFP's executor: in a pod, in a task of Vertex and under `natix run`,
and not in the processes that a step starts, in a test or for who calls a step from Python.
"""

import atexit
import multiprocessing
import os
import platform
import resource
import sys
import time
from pathlib import Path
from types import TracebackType

from natix_lib import __version__
from natix_lib.cpus import cpu_limit, cpus_to_run_on, machine_memory, memory_limit
from natix_lib.errors import NatixError
from natix_lib.progress import ERROR, Lines, duration
from natix_lib.run_cache import size_text
from natix_lib.storage.local import files_below

EXECUTOR, FUNCTION = "kfp.dsl.executor_main", "--function_to_execute"  # KFP's program in a pod, and what it is given
NODE = "NODE_NAME"  # set by `pipelines/targets.py`; a pod cannot tell its node by itself
DEVICES = Path("/dev")

_begun: list[float] = []  # when, on the clock of time.monotonic; empty where this is no step's process
_end: list[str] = []  # what the last line begins with, when the step has written all


def begin() -> None:
    """Begin the log of a step if KFP's executor is the main program of this process."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if getattr(main, "name", "") != EXECUTOR or multiprocessing.parent_process() or FUNCTION not in sys.argv:
        return
    _begun.append(time.monotonic())
    sys.excepthook = _fail
    atexit.register(_finish)
    for line in first_lines(sys.argv[sys.argv.index(FUNCTION) + 1]):
        Lines().say(line)


def first_lines(step: str) -> list[str]:
    """What is at work and where, with CPUs, memory and GPUs as this container may use them."""
    cpus, memory = (min(cpus_to_run_on(), cpu_limit()), os.cpu_count() or 1), (memory_limit(), machine_memory())
    gpus = len(list(DEVICES.glob("nvidia[0-9]*")))
    where = f"node {os.environ[NODE]}, pod {platform.node()}" if os.environ.get(NODE) else f"on {platform.node()}"
    return [
        f"natix {__version__}, step {step}, {where}",
        f"may use {cpus[0]:g} of {cpus[1]} CPUs, {size_text(memory[0])} of {size_text(memory[1])} of memory, "
        f"{gpus or 'no'} GPU{'s'[: gpus > 1]}",
    ]


def written(folder: Path | None = None) -> None:
    """Note, at the end of a step, the folder in which all its outputs lie; None for a step without any."""
    sizes = [path.stat().st_size for _, path in (files_below(folder) if _begun and folder else ())]
    _end[:] = [f"written: {len(sizes)} file{'s'[: len(sizes) != 1]}, {size_text(sum(sizes))}" if folder else "done"]


def _fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _end.clear()
    if not isinstance(error, NatixError):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stdout.flush()
    sys.stderr.write(f"{ERROR}{error}\n")
    sys.stderr.flush()


def _finish() -> None:
    if _end:
        unit = 1 if sys.platform == "darwin" else 1024  # a process begins with the most of its parent, in a pod a shell
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * unit
        Lines().say(f"{_end[0]}, in {duration(time.monotonic() - _begun[0])}, peak memory {size_text(peak)}")
