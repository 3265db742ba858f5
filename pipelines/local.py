"""`natix run`: the pipeline under KFP's local runner, with its cache, a progress display and a published folder.

Nothing here orchestrates: the tasks, their order and their cache are KFP's. This module makes what a person gives
absolute, reads KFP's log to show progress and to give a failed step's own error back, and publishes the artifacts.
What is published is copied. Hard links were rejected: an edit of one run's folder changed the cache and with it all
other runs. Where the file system can (Btrfs, XFS), a copy shares its blocks until one side writes.

KFP has no place to say how a step's process is started or what a cached result must stand, so two of its functions
are replaced while a pipeline runs: see `natix_pipelines.step_process` and `natix_pipelines.step_cache`. A third runs
the shards of a loop: see `natix_pipelines.loop`.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from kfp import dsl, local
from kfp.local import cache as kfp_cache
from kfp.local import subprocess_task_handler

from natix_lib import run_cache, storage
from natix_lib.backbones.sources import is_folder
from natix_lib.config import Config
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import RECALIBRATION, STEPS, TASKS
from natix_lib.errors import ConfigError, StorageError
from natix_lib.files import JsonDict, read_json, require_new, write_bytes
from natix_lib.steps import check_recalibration
from natix_lib.steps.certifiable import say_what_can_be_certified
from natix_lib.steps.fingerprints import fingerprints
from natix_pipelines import loop, recalibration, step_process
from natix_pipelines.run_log import Display, RunLog
from natix_pipelines.step_cache import StepCache, work_of
from natix_pipelines.targets import local_target
from natix_pipelines.training import build

CONFIG, LOG = "config.yaml", "run.log"
AT_TOP = {"bundle", "report"}  # published where a person looks first, not below their step
REWRITTEN = "python3"  # KFP's local runner replaces this text wherever it stands in a parameter
FICLONE = 0x40049409  # Linux' ioctl: share the blocks of another file until one of the two is written


def run(config: Config, output: Path, cache: Path | None, display: Display) -> None:
    """Run the pipeline of training and publish its artifacts.

    Args:
        config: The validated config.
        output: Folder to write: `bundle/`, `report.html`, a folder for each step, `config.yaml` and `run.log`.
            It must not exist or be empty, and appears only when the whole run has succeeded.
        cache: Where finished steps are kept; None is `$XDG_CACHE_HOME/natix` or `~/.cache/natix`.
        display: Who is told of every task. While the pipeline runs, what is written to stdout and stderr goes into the
            log, so a display must hold the stream that it writes to.

    Raises:
        NatixError: If a step fails; the error has the message of the step's.
    """
    require_place(output)
    config, arguments = prepared(config)
    _run(config, (build(local_target(), config), STEPS), arguments, (output, cache), display)


def recalibrate(config: Config, output: Path, cache: Path | None, display: Display) -> None:
    """Run the pipeline of recalibration, whose bundle the config names, and publish as `run` does."""
    require_place(output)
    config = _absolute(config)
    config = config.model_copy(update={"export": config.export.model_copy(update={"policy": "calibrate"})})
    settings, arguments = check_recalibration.prepared(config)
    _refuse_rewritten(settings)
    pipeline = recalibration.build(local_target(), config)
    _run(config, (pipeline, RECALIBRATION), arguments, (output, cache), display)


def _run(
    config: Config,
    work: tuple[Any, Iterable[str]],
    arguments: dict[str, str],
    places: tuple[Path, Path | None],
    display: Display,
) -> None:
    """Run a pipeline, given with its steps, and publish at the first of two places, with the cache at the second."""
    (pipeline, steps), (output, cache) = work, places
    place = _writable(cache)
    log = RunLog(display)
    with run_cache.in_use(place):
        try:
            with _listening(log), _replaced(place, log, config):
                local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(place / run_cache.ARTIFACTS))
                outputs = pipeline(**arguments).outputs
        except RuntimeError as error:
            raise log.error(place) from error
        config_text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        _publish(outputs, steps, output, {CONFIG: config_text, LOG: log.text()})


def require_place(output: Path) -> None:
    """Refuse at once an output that could not be published at the end: it takes its place by a rename.

    Raises:
        ConfigError: If it holds something, or is a folder that cannot be replaced.
        StorageError: If nothing can be written beside it.
    """
    require_new(output)
    for what, holds in (
        ("the working folder", output.absolute() == Path.cwd()),
        ("a link", output.is_symlink()),
        ("a mount", output.is_mount()),
    ):
        if holds:
            raise ConfigError(f"output {output} is {what}: name a folder below it, which the run makes")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {output}: {os.strerror(errno.EACCES)}")


def prepared(config: Config) -> tuple[Config, dict[str, str]]:
    """A config with absolute paths, and the arguments of its pipeline, which tell what its sources hold.

    Raises:
        ConfigError: If KFP would rewrite a value.
        StorageError: If the data, the backbone's folder or the earlier division is not there.
        ContractError: If the earlier division is none.
    """
    config = _absolute(config)
    _refuse_rewritten(step_settings(config))
    return config, fingerprints(config)


def _refuse_rewritten(settings: JsonDict) -> None:
    if REWRITTEN in str(settings):
        raise ConfigError(f"no config value may contain {REWRITTEN!r}: KFP's local runner rewrites it")


def _absolute(config: Config) -> Config:
    """Local paths as absolute ones: steps run elsewhere."""
    sections: dict[str, Any] = {}
    for name, key in (
        ("data", "data_root"),
        ("split", "previous"),
        ("model", "backbone_id"),
        ("explora", "checkpoint_root"),
        ("training", "checkpoint_root"),
        ("training", "tensorboard_root"),
        ("training", "feature_cache_dir"),
        ("export", "publish_uri"),
        ("recalibrate", "bundle"),
    ):
        section = sections.get(name, getattr(config, name))
        path = getattr(section, key)
        if path and not storage.is_remote(path) and (key != "backbone_id" or is_folder(path)):
            sections[name] = section.model_copy(update={key: str(Path(path).resolve())})
    return config.model_copy(update=sections)


def _writable(cache: Path | None) -> Path:
    """The cache folder, made where it is not there yet.

    Raises:
        ConfigError: If none is named and this user has no home folder.
        StorageError: If it cannot be written.
    """
    place = run_cache.place(cache)
    try:
        run_cache.steps_folder(place).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise StorageError(f"cache {place} cannot be written, {error.strerror}: {run_cache.ELSEWHERE}") from error


@contextlib.contextmanager
def _replaced(place: Path, log: RunLog, config: Config) -> Iterator[None]:
    """Let KFP start its tasks and look for finished ones in our way."""

    def run_step(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        log.code = step_process.run(full_command, {**(env_vars or {}), run_cache.VARIABLE: str(place.absolute())})
        if not log.code and (splits := _path_of("splits", full_command)):
            log.notes = _after_split(splits, config)
        return log.code

    def take_kept(step: str, outputs: dict[str, Any], seconds: float) -> None:
        if "splits" in outputs:
            log.notes = _after_split(Path(outputs["splits"].path), config)
        log.finished(step, True, seconds)

    steps = StepCache(str(run_cache.steps_folder(place)), take_kept, work_of(config))

    with in_place_of_kfps(
        (subprocess_task_handler, "run_local_subprocess", run_step),
        (kfp_cache, "get_local_cache", lambda: steps),
        loop.ONE_BY_ONE,
    ):
        yield


@contextlib.contextmanager
def in_place_of_kfps(*functions: tuple[ModuleType | type, str, Callable[..., Any]]) -> Iterator[None]:
    """Within the block functions of KFP are ours: each its module or class, its name, and what stands in for it."""
    before = [getattr(module, name) for module, name, _ in functions]
    for module, name, ours in functions:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for (module, name, _), theirs in zip(functions, before, strict=True):
            setattr(module, name, theirs)


def _path_of(output: str, command: list[str]) -> Path | None:
    """Where the step that a command runs writes an artifact; None when it has none of this name."""
    executor_input = json.loads(command[command.index("--executor_input") + 1])
    artifact = executor_input["outputs"].get("artifacts", {}).get(output)
    return Path(artifact["artifacts"][0]["uri"]) if artifact else None


def _after_split(splits: Path, config: Config) -> list[str]:
    """What a person should know of a division before training begins, lines.

    Args:
        splits: The file splits.json of this run, just made or from the cache.
        config: The run's config.
    """
    return say_what_can_be_certified(read_json(splits), config)


@contextlib.contextmanager
def _listening(log: RunLog) -> Iterator[None]:
    """Take what KFP says: most of it on stdout, its cache hits through the root logger; its own deprecations not."""
    root, handler = logging.getLogger(), logging.StreamHandler(log)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _publish(outputs: dict[str, dsl.Artifact], steps: Iterable[str], output: Path, texts: dict[str, str]) -> None:
    """Put the artifacts and texts into `output`, which appears whole."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        for name in steps:
            for artifact in TASKS[name].makes:
                if artifact.name not in outputs or not artifact.published:
                    continue
                target = partial / artifact.file if artifact.name in AT_TOP else partial / name / artifact.file
                target.parent.mkdir(parents=True, exist_ok=True)
                source = Path(outputs[artifact.name].path)
                if source.is_dir():
                    shutil.copytree(source, target, copy_function=_copy)
                else:
                    _copy(source, target)
        for name, text in texts.items():
            write_bytes(partial / name, text.encode())
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(source: str | Path, target: str | Path) -> None:
    with Path(source).open("rb") as old, Path(target).open("wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:  # another file system, or one that cannot
            shutil.copyfileobj(old, new, 1 << 20)
