"""The onnxruntime session of a bundle: what it may hold, and how many threads it takes.

onnxruntime takes a thread for every core of the machine, whatever share of it a container may use, and does not read
OMP_NUM_THREADS; a pod with 2 CPUs on a node of 64 would start 64 threads that wait for each other. So the threads are
counted here.

A model file is a program and cannot be judged whole. What holds: it is the file that the manifest names; its weights
lie in the bundle's folder (onnxruntime refuses a path out of it); it takes and gives what a classifier of these
classes does; it has no operators but onnxruntime's own; and it repeats the golden logits. What it computes for other
images, how long it takes and how much memory, nothing here says: open bundles of people you trust.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from natix_lib.errors import BundleError, ConfigError

INPUT, OUTPUT = "pixel_values", "logits"
FATAL = 4  # onnxruntime's severity; what it has to say of an error is in the exception
PROC, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def open_session(path: Path, image_size: int, classes: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU.

    Args:
        path: Path of model.onnx, its weights beside it.
        image_size: Side S of the images that it must take, in pixels.
        classes: Number of classes C, which is how many logits it must give.

    Returns:
        A session from `pixel_values` float32 (n, 3, S, S) to `logits` float32 (n, C), any n.

    Raises:
        BundleError: If onnxruntime cannot open it, or it takes or gives anything else.
        ConfigError: If OMP_NUM_THREADS is no number.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = cpu_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would take a server's cores
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise BundleError(f"{path} is no model that onnxruntime opens: {error}") from error
    ends = (("take", session.get_inputs(), INPUT, [3, image_size, image_size]),
            ("give", session.get_outputs(), OUTPUT, [classes]))  # fmt: skip
    for verb, values, name, shape in ends:
        actual = [(value.name, value.type, value.shape) for value in values]
        if [(value.name, value.type, value.shape[1:]) for value in values] != [(name, "tensor(float)", shape)] or (
            isinstance(values[0].shape[0], int)
        ):
            raise BundleError(f"{path} must {verb} {name}, float of shape {['n', *shape]}, for any n; got {actual}")
    return session


def cpu_threads(environment: Mapping[str, str] = os.environ, process: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Threads for computing in this process.

    OMP_NUM_THREADS when it is set, else the CPU limit of the container (the quota of cgroup v2 or v1, a part of a CPU
    counted as one), else the CPUs that this process may run on; never more than these.

    Args:
        environment: Where OMP_NUM_THREADS is looked up.
        process: The file that names this process's cgroups.
        cgroups: Where cgroups are mounted.

    Raises:
        ConfigError: If OMP_NUM_THREADS is not a whole number from 1; of a list, as OpenMP takes it, the first counts.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = environment.get("OMP_NUM_THREADS", "").strip()
    if text:
        first = text.split(",")[0].strip()
        if not (first.isascii() and first.isdecimal() and 1 <= len(first) < 10 and int(first) >= 1):
            raise ConfigError(f"OMP_NUM_THREADS must be a whole number from 1, got {text!r}")
        return min(int(first), cpus)
    return math.ceil(min(cpus, _cpu_quota(process, cgroups)))


def _cpu_quota(process: Path, cgroups: Path) -> float:
    """CPUs that the cgroups of this process may use at once, those above it included; infinite without a limit."""
    quotas = [math.inf]
    for line in _text(process).splitlines():
        _, controllers, place = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        mounts = [cgroups / controllers, cgroups / "cpu"] if controllers else [cgroups, cgroups / "unified"]
        for mount in mounts:
            # Inside a container the place is often that of the host, and the mount is the container's own: then
            # only the mount itself is there.
            folder = mount / place.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(mount):
                    quotas.append(_quota_of(group))
    return min(quotas)


def _quota_of(group: Path) -> float:
    """The quota of one cgroup, of version 2 or 1."""
    files = [group / "cpu.max"], [group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"]
    for words in (" ".join(map(_text, paths)).split() for paths in files):
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            return int(words[0]) / int(words[1])
    return math.inf  # "max", -1, or no such file


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
