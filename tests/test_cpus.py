"""The CPUs that a process may use, told by files that the test writes."""

import os
from pathlib import Path

import pytest

from natix_lib.config import Dataloader
from natix_lib.cpus import cpu_limit, cpu_threads, memory_limit
from natix_lib.errors import ConfigError

CPUS = len(os.sched_getaffinity(0))


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def threads(folder: Path, place: str, environment: dict[str, str] | None = None) -> int:
    (folder / "process").write_text(place)
    return cpu_threads(environment or {}, folder / "process", folder)


@pytest.mark.parametrize(
    ("files", "place", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),  # half a CPU is still one thread
        ({"cpu.max": "max 100000\n"}, "0::/\n", CPUS),
        ({"cpu.max": "99900000 100000\n"}, "0::/\n", CPUS),  # more than there are
        ({"pod/cpu.max": "100000 100000\n", "pod/one/cpu.max": "max 100000\n"}, "0::/pod/one\n", 1),  # of the pod
        ({"other/cpu.max": "100000 100000\n"}, "0::/pod/one\n", CPUS),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/docker/x\n", 1),
        ({"cpu/p/cpu.cfs_quota_us": "1000\n", "cpu/p/cpu.cfs_period_us": "1000\n"}, "2:memory:/q\n1:cpu:/p\n", 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", CPUS),
        ({}, "", CPUS),
    ],
)
def test_threads_follow_the_cpu_limit_of_the_container(
    tmp_path: Path, files: dict[str, str], place: str, expected: int
) -> None:
    assert threads(tree(tmp_path, files), place) == expected


def test_a_quota_of_one_and_a_half_cpus_is_two_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert threads(tree(tmp_path, {"cpu.max": "150000 100000"}), "0::/") == 2
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": "12"}) == 12
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": " 3,2 "}) == 3
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": "500"}) == 64
    assert threads(tmp_path, "0::/", {"OMP_NUM_THREADS": ""}) == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²", "9" * 30])
def test_a_setting_that_is_no_number_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS must be a whole number from 1, got "):
        threads(tmp_path, "0::/", {"OMP_NUM_THREADS": text})


@pytest.mark.parametrize(
    ("files", "place", "expected"),
    [
        ({"memory.max": "1048576\n"}, "0::/\n", 1 << 20),
        ({"memory.max": "max\n"}, "0::/\n", None),
        ({"pod/memory.max": "1000000\n", "pod/one/memory.max": "2000000\n"}, "0::/pod/one\n", 1_000_000),
        ({"memory/memory.limit_in_bytes": "1000000\n"}, "9:memory:/docker/x\n4:cpu:/\n", 1_000_000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "9:memory:/\n", None),  # version 1's none
        ({}, "", None),
    ],
)
def test_memory_is_what_the_container_may_use_or_the_machine_has(
    tmp_path: Path, files: dict[str, str], place: str, expected: int | None
) -> None:
    (tree(tmp_path, files) / "process").write_text(place)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_limit(tmp_path / "process", tmp_path) == (expected or machine)


def test_a_part_of_a_cpu_is_a_part(tmp_path: Path) -> None:
    (tree(tmp_path, {"cpu.max": "50000 100000"}) / "process").write_text("0::/")
    assert cpu_limit(tmp_path / "process", tmp_path) == 0.5


def test_processes_that_decode_are_counted_where_the_config_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, processes, expected in ((2, 1, 2), (64, 1, 8), (8, 4, 2), (2, 8, 1)):
        monkeypatch.setattr("natix_lib.config.data.usable_cpus", lambda cpus=cpus: cpus)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert Dataloader().workers == expected
    assert Dataloader(num_workers=0).workers == 0 and Dataloader(num_workers=12).workers == 12
