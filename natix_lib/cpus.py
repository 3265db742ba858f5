"""How many CPUs and how much memory this process may use, which in a pod is not what the node has.

A pod with 2 of a node's 64 CPUs would start 64 threads that wait for each other.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from natix_lib.errors import ConfigError

PROC, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


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
    cpus = cpus_to_run_on()
    text = environment.get("OMP_NUM_THREADS", "").strip()
    if text:
        first = text.split(",")[0].strip()
        if not (first.isascii() and first.isdecimal() and 1 <= len(first) < 10 and int(first) >= 1):
            raise ConfigError(f"OMP_NUM_THREADS must be a whole number from 1, got {text!r}")
        return min(int(first), cpus)
    return usable_cpus(process, cgroups)


def usable_cpus(process: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """CPUs that this process may use at once: the limit of its container, or else those that it may run on."""
    return math.ceil(min(cpus_to_run_on(), cpu_limit(process, cgroups)))


def cpus_to_run_on() -> int:
    """CPUs that this process may run on, whatever its container may use of their time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_limit(process: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """CPUs that the cgroups of this process may use at once, those above it included; infinite without a limit."""
    return min(map(_cpus_of, _groups("cpu", process, cgroups)), default=math.inf)


def memory_limit(process: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Bytes of memory that this process may use: the least that its cgroups, or the machine, allow."""
    return int(min([machine_memory(), *map(_bytes_of, _groups("memory", process, cgroups))]))


def machine_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(controller: str, process: Path, cgroups: Path) -> Iterator[Path]:
    """The cgroups of this process by which a controller may limit it, those above them included, some of them twice."""
    for line in _text(process).splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [cgroups / controllers, cgroups / controller] if controllers else [cgroups, cgroups / "unified"]
        for mount in mounts:
            # Inside a container the place is often that of the host, and the mount is the container's own: then
            # only the mount itself is there.
            folder = mount / place.lstrip("/")
            yield from (group for group in (folder, *folder.parents) if group.is_relative_to(mount))


def _cpus_of(group: Path) -> float:
    """The quota of one cgroup, of version 2 or 1."""
    files = [group / "cpu.max"], [group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"]
    for words in (" ".join(map(_text, paths)).split() for paths in files):
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            return int(words[0]) / int(words[1])
    return math.inf  # "max", -1, or no such file


def _bytes_of(group: Path) -> float:
    """The most memory of one cgroup, of version 2 or 1; version 1 writes a number beyond any memory for none."""
    texts = (_text(group / name).strip() for name in ("memory.max", "memory.limit_in_bytes"))
    return min((int(text) for text in texts if text.isdecimal()), default=math.inf)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
