"""The two images, built from this tree, and the figures that a run ends with."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LOCAL_BASE, LOCAL_BUILD = "natix-base:bookworm", "natix-build:bookworm"  # what images/make-base makes
FIGURES = pytest.StashKey[list[tuple[str, str]]]()

Figures = Callable[[str, str], None]


@dataclass(frozen=True)
class Images:
    """The images' names."""

    cpu: str = "natix-cpu:test"
    gpu: str = "natix-gpu:test"


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """Takes a figure's name and value for the table at the end."""
    taken = pytestconfig.stash.setdefault(FIGURES, [])
    return lambda name, value: taken.append((name, value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if FIGURES in config.stash:
        terminalreporter.section("figures")
        for name, value in config.stash[FIGURES]:
            terminalreporter.write_line(f"{name:<60} {value}")


@pytest.fixture(scope="session")
def images(figures: Figures) -> Images:
    """Both images, with torch's CPU build in both: what is tested is the same and no GPU is needed."""
    if not _succeeds("docker", "info"):
        pytest.skip("no Docker engine answers: make test-containers starts one")
    built = Images()
    variables = _base(figures)
    for target, name in (("cpu", built.cpu), ("gpu", built.gpu)):
        started = time.monotonic()
        _run("make", f"image-{target}", f"IMAGE_{target.upper()}={name}", *variables)
        figures(f"make image-{target}, minutes", f"{(time.monotonic() - started) / 60:.1f}")
    return built


def _base(figures: Figures) -> list[str]:
    """make's variables: the ordinary base; without a registry, the one that `images/make-base` makes.

    Both images get torch's CPU build: from local wheels if pip knows some, else from its index.
    """
    base = _variable("BASE_IMAGE")
    index = _variable("TORCH_CPU_INDEX")
    if _succeeds("docker", "image", "inspect", base) or _succeeds("docker", "pull", base):
        return [f"TORCH_CPU_INDEX={index}", f"TORCH_GPU_INDEX={index}"]
    if not _succeeds("docker", "image", "inspect", LOCAL_BUILD):
        started = time.monotonic()
        _run("env", f"PYTHON={sys.executable}", "images/make-base")
        figures("images/make-base, minutes", f"{(time.monotonic() - started) / 60:.1f}")
    if _succeeds(sys.executable, "-m", "pip", "config", "get", "global.find-links"):
        index = ""
    return [
        f"BASE_IMAGE={LOCAL_BASE}",
        f"BUILD_IMAGE={LOCAL_BUILD}",
        f"TORCH_CPU_INDEX={index}",
        f"TORCH_GPU_INDEX={index}",
    ]


def _variable(name: str) -> str:
    """A variable of make: the environment's, or the Makefile's own."""
    (own,) = re.findall(rf"^{name} *\?= *(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return os.environ.get(name, own)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, "\n".join([f"{' '.join(command)} failed:", *done.stdout.splitlines()[-30:]])
