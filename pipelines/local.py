"""`natix run`: the pipeline under KFP's local runner, with its cache, a progress display and a published folder.

Nothing here orchestrates: the tasks, their order and their cache are KFP's. This module makes what a person gives
absolute, reads KFP's log to show progress and to give a failed step's own error back, and publishes the artifacts.
Folder artifacts are hard-linked from the cache, because a dataset can be large and its hashes are checked whenever it
is opened; single files are copied.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import yaml
from kfp import dsl, local

from natix_lib import errors, storage
from natix_lib.config import Config, parse
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_lib.errors import ConfigError, NatixError, StorageError
from natix_lib.files import require_new, write_bytes
from pipelines.targets import local_target
from pipelines.training import build

ROOT = Path(__file__).parent.parent
CONFIG, LOG = "config.yaml", "run.log"
AT_TOP = {"bundle", "report"}  # published where a person looks first, not below their step
REWRITTEN = "python3"  # KFP's local runner replaces this text wherever it stands in a parameter
COLOUR = re.compile(r"\x1b\[\d+m")
STARTED = re.compile(r"Executing task '([\w-]+)'")
CACHED = re.compile(r"Task ([\w-]+) cache hit")
ENDED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
RAISED = re.compile(r"^\s*natix_lib\.errors\.(\w+): (.*)$")


class Display(Protocol):
    """What shows a run."""

    def started(self, step: str) -> None: ...
    def line(self, step: str, text: str) -> None: ...
    def finished(self, step: str, cached: bool) -> None: ...
    def failed(self, step: str) -> None: ...


def run(config: Config, output: Path, cache: Path | None, display: Display) -> None:
    """Run the pipeline and publish its artifacts.

    Args:
        config: The config.
        output: Folder to write: `bundle/`, `report.html`, a folder for each step, `config.yaml` and `run.log`.
            It must not exist or be empty, and appears only when the whole run has succeeded.
        cache: Where finished steps are kept; None is `$XDG_CACHE_HOME/natix` or `~/.cache/natix`.
        display: Told of every task.

    Raises:
        NatixError: Of the class and with the message of the step that failed.
    """
    require_new(output)
    config = _absolute(config)
    values = config.model_dump(mode="json", exclude_none=True)
    arguments = {name: section for name, section in values.items() if name != "hardware"}
    if REWRITTEN in str(arguments):
        raise ConfigError(f"no config value may contain {REWRITTEN!r}: KFP's local runner rewrites it")
    arguments["data_version"] = storage.fingerprint(config.data.data_root)
    if _is_folder(config.model.backbone_id):
        arguments["backbone_version"] = storage.fingerprint(config.model.backbone_id)
    place = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "natix"
    log = _Log(display)
    try:
        with _listening(log), _importable():
            local.init(
                local.SubprocessRunner(use_venv=False), pipeline_root=str(place / "artifacts"), enable_caching=True
            )
            outputs = build(local_target(), config)(**arguments).outputs
    except RuntimeError as error:
        raise log.error(place) from error
    config_text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    _publish(outputs, output, {CONFIG: config_text, LOG: log.text()})


def _absolute(config: Config) -> Config:
    """Local paths as absolute ones: steps run elsewhere."""
    values = config.model_dump(mode="json")
    for section, key in (
        ("data", "data_root"),
        ("model", "backbone_id"),
        ("training", "feature_cache_dir"),
        ("export", "publish_uri"),
    ):
        path = values[section][key]
        if path and not storage.is_remote(path) and (key != "backbone_id" or Path(path).is_dir()):
            values[section][key] = str(Path(path).resolve())
    return parse(Config, values)


def _is_folder(uri: str) -> bool:
    return storage.is_remote(uri) or Path(uri).is_dir()


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Let the steps' processes import this project when it is used from a checkout without being installed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _listening(log: "_Log") -> Iterator[None]:
    """Take what KFP says: most of it on stdout, its cache hits through the root logger; its own deprecations not."""
    root, handler = logging.getLogger(), logging.StreamHandler(log)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(log):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class _Log(io.TextIOBase):
    """Takes what KFP prints, tells the display, and keeps the lines."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._lines: list[str] = []
        self._partial = ""
        self._step = ""

    def write(self, text: str) -> int:
        *whole, self._partial = (self._partial + text).split("\n")
        for line in whole:
            self._take(COLOUR.sub("", line))
        return len(text)

    def text(self) -> str:
        """All lines so far."""
        return "\n".join([*self._lines, self._partial]).rstrip() + "\n"

    def _take(self, line: str) -> None:
        self._lines.append(line)
        if found := STARTED.search(line):
            self._step = found[1]
            self._display.started(self._step)
        elif found := CACHED.search(line):
            self._display.started(found[1])
            self._display.finished(found[1], cached=True)
        elif found := ENDED.search(line):
            if found[2] == "SUCCESS":
                self._display.finished(found[1], cached=False)
            else:
                self._display.failed(found[1])
        elif line.startswith("    ") and line.strip() and "[KFP Executor" not in line:
            self._display.line(self._step, line.strip())

    def error(self, place: Path) -> NatixError:
        """The failed step's own error, found in the last line of its traceback."""
        for line in reversed(self._lines):
            if found := RAISED.match(line):
                kind: Any = getattr(errors, found[1], NatixError)
                error: NatixError = kind(found[2])
                return error
        self._display.failed(self._step)
        write_bytes(place / "failed.log", self.text().encode())
        last = next((line.strip() for line in reversed(self._lines) if line.startswith("    ") and line.strip()), "")
        return NatixError(f"step {self._step or 'check'} failed: {last} (log: {place / 'failed.log'})")


def _publish(outputs: dict[str, dsl.Artifact], output: Path, texts: dict[str, str]) -> None:
    """Put the artifacts and texts into `output`, which appears whole."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        for name, step in STEPS.items():
            for artifact in set(step.outputs) & set(outputs):
                file = ARTIFACTS[artifact].file
                target = partial / file if artifact in AT_TOP else partial / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                source = Path(outputs[artifact].path)
                if source.is_dir():
                    shutil.copytree(source, target, copy_function=_link_or_copy)
                else:
                    shutil.copyfile(source, target)
        for name, text in texts.items():
            write_bytes(partial / name, text.encode())
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
