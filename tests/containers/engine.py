"""Containers as a cluster that trusts nothing would run them, and what the engine says of each while it runs."""

import contextlib
import io
import re
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.types import Mount
from kfp import local

NOBODY = "65532:65532"
RESTRICTED = {"user": NOBODY, "network_mode": "none", "read_only": True, "tmpfs": {"/tmp": "size=1g"}}
COLOUR = re.compile(r"\x1b\[\d+m")
STARTED = re.compile(r"Executing task '([\w-]+)'")


@dataclass
class Container:
    """A container that ran, as the engine describes it; KFP takes one that is already gone for a success."""

    image: str
    command: list[str]
    user: str
    read_only: bool
    network: str
    writable: set[str]
    environment: list[str]
    exit_code: int | None = None

    @property
    def task(self) -> str:
        """The component's function."""
        return self.command[self.command.index("--function_to_execute") + 1]


@dataclass
class Run:
    """A pipeline's run: its outputs, what KFP printed, the containers in their order, and the error that ended it."""

    root: Path
    outputs: dict[str, Any] = field(default_factory=dict)
    log: str = ""
    containers: list[Container] = field(default_factory=list)
    error: str = ""

    @property
    def tasks(self) -> list[str]:
        """The tasks that KFP says it started."""
        return STARTED.findall(self.log)


def read_only(sources: Mapping[str, Path]) -> list[Mount]:
    """Mounts that a container can only read, by their place in it."""
    return [Mount(place, str(source), type="bind", read_only=True) for place, source in sources.items()]


def run_pipeline(
    pipeline: Any, root: Path, sources: Mapping[str, Path], environment: Mapping[str, str] | None = None
) -> Run:
    """Run a pipeline under KFP's DockerRunner; only `root` and /tmp can be written, and there is no network."""
    root.mkdir()
    root.chmod(0o777)  # the containers' user is nobody's
    run, printed = Run(root), io.StringIO()
    with _watched(run.containers), warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")  # KFP's own deprecations
        runner = local.DockerRunner(mounts=read_only(sources), environment=dict(environment or {}), **RESTRICTED)
        local.init(runner, pipeline_root=str(root))
        try:
            run.outputs = pipeline().outputs
        except (RuntimeError, ValueError) as error:  # the second of a next task, when KFP took a failure for a success
            run.error = str(error)
    run.log = COLOUR.sub("", printed.getvalue())
    return run


def run_command(
    image: str,
    *command: object,
    sources: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command in an image, as restricted as a task; sources are read-only."""
    options = ["--network", "none", "--read-only", "--tmpfs", "/tmp:size=1g"]
    for place, source in (sources or {}).items():
        options += ["--mount", f"type=bind,src={source},dst={place},readonly"]
    for name, value in (environment or {}).items():
        options += ["--env", f"{name}={value}"]
    return subprocess.run(
        ["docker", "run", "--rm", *options, image, *map(str, command)], capture_output=True, text=True, timeout=300
    )


@contextlib.contextmanager
def _watched(containers: list[Container]) -> Iterator[None]:
    """Add every container that starts meanwhile."""
    client = docker.from_env()
    events = client.events(decode=True, filters={"type": "container", "event": ["start", "die"]})
    running: dict[str, Container] = {}

    def listen() -> None:
        for event in events:
            if event["Action"] == "start":
                running[event["id"]] = _describe(client.api.inspect_container(event["id"]))
                containers.append(running[event["id"]])
            elif event["id"] in running:
                running[event["id"]].exit_code = int(event["Actor"]["Attributes"]["exitCode"])

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(container.exit_code is None for container in containers):
            time.sleep(0.05)
    finally:
        events.close()
        thread.join()
        client.close()


def _describe(found: Mapping[str, Any]) -> Container:
    return Container(
        image=found["Config"]["Image"],
        command=[*(found["Config"]["Entrypoint"] or []), *found["Config"]["Cmd"]],
        user=found["Config"]["User"],
        read_only=found["HostConfig"]["ReadonlyRootfs"],
        network=found["HostConfig"]["NetworkMode"],
        writable={mount["Destination"] for mount in found["Mounts"] if mount["RW"]},
        environment=found["Config"]["Env"],
    )
