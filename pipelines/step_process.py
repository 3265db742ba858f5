"""A step's process, which ends when its run does: finished, stopped, interrupted, or killed outright.

KFP's own way to start a step leaves it running when the run is told to stop, and says of a failure neither the exit
code nor the signal. Here this file, run as a script, stands between the run and the step. It starts the step in a
process group of its own and reads its stdin, a pipe that the run alone holds open: the end of the pipe, by whatever
the run has ended, ends the group. SIGTERM comes first, so that a checkpoint is written; a run that is told to stop
once more says so by SIGUSR1, which kills the group at once. SIGTERM to this script itself, which a service manager
sends to all processes of a run, changes nothing: the run has it too. A pipe and not Linux' PR_SET_PDEATHSIG: macOS has
none, and it would reach the shell that KFP starts and not the Python below it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

GRACE_SECONDS = 25.0  # from SIGTERM to SIGKILL; Kubernetes gives 30


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a step and print what it prints.

    Args:
        command: The step's program and its arguments.
        environment: Environment variables that the step gets beside those of this process.

    Returns:
        The exit code; 128 + n when signal n ended the step.
    """
    with (
        tempfile.TemporaryDirectory(prefix="natix-", ignore_cleanup_errors=True) as scratch,
        subprocess.Popen(
            [sys.executable, "-IS", __file__, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **(environment or {}), "TMPDIR": scratch},  # KFP leaves a folder of each step
            start_new_session=True,  # a terminal's Ctrl-C is for the run, which ends the step
        ) as process,
    ):
        assert process.stdin and process.stdout
        try:
            _print(process.stdout)
            print("\n")
            return process.wait()
        except BaseException:
            process.stdin.close()
            try:
                print(f"stopping, which may take {GRACE_SECONDS:.0f} s; Ctrl-C once more ends it at once")
                _print(process.stdout)  # to its end: then no process of the step is left
            except BaseException:  # told once more
                process.send_signal(signal.SIGUSR1)
                raise
            raise


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, end="")


def main() -> None:
    """Start the step that the command line names, and end it with the run."""
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(_kill(step.pid)))
    signal.signal(signal.SIGTERM, lambda *_: None)  # and not SIG_IGN, which the step would inherit
    step = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    stopped = threading.Event()

    def end_with_run() -> None:
        os.read(sys.stdin.fileno(), 1)
        stopped.set()
        _end(step.pid)

    watch = threading.Thread(target=end_with_run, daemon=True)
    watch.start()
    code = step.wait()
    if stopped.is_set():
        watch.join()
    _kill(step.pid)  # what a step that was killed has left
    sys.exit(code if code >= 0 else 128 - code)


def _kill(group: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return 128 + signal.SIGKILL


def _end(group: int) -> None:
    """Ask a process group to end, and wait for it as long as it may take."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.05)


if __name__ == "__main__":
    main()
