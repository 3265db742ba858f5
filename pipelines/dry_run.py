"""`natix run --dry-run`: what the run would take from the cache, what it would do, and how long at most.

It is the run itself, by KFP and with the same cache, in which a step that is not in the cache is not started: its
outputs are unknown, and so is the key of whatever takes them. Such a step may be in the cache all the same, when what
runs before it gives the same bytes as before; this is said and not guessed. Nothing is written, no folder is made and
no process started; what is kept is read and hashed, because a run would take nothing from the cache unseen.

A step's time is told from what the same step has taken before, in the run of the most similar number of images and,
where the model counts, with the same one. More images or epochs count in proportion, which is too much, because a part
of each step is the same for any number; fewer count as no less. So it is an upper estimate, and where nothing like it
was run before there is none. A rule of thumb for other machines was rejected: it would be wrong by tens of times.
"""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import dsl, local
from kfp.local import cache as kfp_cache
from kfp.local import config as kfp_config
from kfp.local import status, task_dispatcher

from natix_lib import run_cache, storage
from natix_lib.backbones.sources import is_folder, is_hub_id
from natix_lib.config import Config
from natix_lib.data.listing import IMAGE_SUFFIXES
from natix_lib.files import JsonDict
from natix_lib.grammar import PATCHES
from natix_lib.progress import duration
from natix_lib.survey.machine import this_machine
from natix_pipelines import loop
from natix_pipelines.local import in_place_of_kfps, prepared, require_place
from natix_pipelines.step_cache import StepCache, code_of, work_of
from natix_pipelines.targets import local_target
from natix_pipelines.training import build

CACHED, RUN, CHANGED, OPEN = "cached", "run", "changed", "open"
STATES = {
    CACHED: "from the cache",
    RUN: "to run",
    CHANGED: "to run: its kept result was changed",
    OPEN: "to run, unless its inputs come out as before",
}
NO_KEY = "unknown"
ANY_MODEL = {"ingest", "shard", "gather", "split", "sweep", "calibrate"}  # take as long whatever the model is
ANY_IMAGES = {"fetch", "adapt"}  # take as long whatever the number of images is
TIMES = {"train": "epochs", "adapt": "explora_steps"}  # take as many times as long


@dataclass
class Plan:
    """What a run would do.

    Attributes:
        states: CACHED, RUN, CHANGED or OPEN of each step, in the order of the run.
        saved: Seconds that a step's kept result took to make, by step; no key where nothing says.
        estimates: Seconds that a step will take at most, by step; no key where nothing says.
        images: How many images the run has; None where only ingest can tell.
        files: Bytes of each file of the data, by name.
    """

    states: dict[str, str] = field(default_factory=dict)
    saved: dict[str, float] = field(default_factory=dict)
    estimates: dict[str, float] = field(default_factory=dict)
    images: int | None = None
    files: dict[str, int] = field(default_factory=dict)

    def state(self, step: str, state: str) -> None:
        """Note the state of a step; of shard, which comes once for each, that of one that is not cached."""
        if self.states.get(step, CACHED) == CACHED:
            self.states[step] = state


def plan(config: Config, output: Path, cache: Path | None) -> Plan:
    """Find out what `local.run` with the same arguments would do.

    Raises:
        NatixError: What `local.run` would refuse before its first step.
    """
    require_place(output)
    config, arguments = prepared(config)
    place = run_cache.place(cache)
    before = run_cache.kept(place)
    code = code_of(local_target().image("train"))
    known = {entry.step for entry in before if entry.key and entry.record.get("code", code) == code}
    looked = Plan()
    steps = _Looker(place, looked, known) if run_cache.steps_folder(place).is_dir() else None
    with _silent(), _looking(looked, steps):
        kfp_config.LocalExecutionConfig(  # not local.init: it makes a temporary folder
            local.SubprocessRunner(use_venv=False), str(place / run_cache.ARTIFACTS), "", raise_on_error=True
        )
        build(local_target(), config)(**arguments)
    if looked.states.get("shard", CACHED) != CACHED:
        looked.images = None  # those of some shards
    looked.files = storage.sizes(config.data.data_root)
    if looked.images is None:
        looked.images = _pictures(looked.files)
    for step, state in looked.states.items():
        if state != CACHED and (seconds := _estimate(step, before, work_of(config), looked.images)) is not None:
            looked.estimates[step] = seconds
    return looked


def report(config: Config, output: Path, cache: Path | None) -> list[str]:
    """A plan as lines for a person: what is read, the device, the steps in order, and the time in all."""
    steps = plan(config, output, cache)
    backbone = config.model.backbone_id
    lines = [
        f"data      {config.data.data_root}: {_content(steps.files)}",
        f"backbone  {backbone}: {_backbone(backbone)}",
        f"device    {this_machine()}",
        f"cache     {run_cache.place(cache)}",
        "",
    ]
    widest = max(len(STATES[state]) for state in steps.states.values())
    for step, state in steps.states.items():
        seconds = steps.saved.get(step) if state == CACHED else steps.estimates.get(step)
        if seconds is None:
            time = "" if state == CACHED else "time unknown"
        else:
            time = f"{'took' if state == CACHED else 'at most about'} {duration(seconds)}"
        lines.append(f"{step:<11}{STATES[state]:<{widest + 2}}{time}".rstrip())
    return [*lines, "", _total(steps), "nothing was run or written"]


def _total(steps: Plan) -> str:
    to_run = [step for step, state in steps.states.items() if state != CACHED]
    saved = f", which took {duration(sum(steps.saved.values()))}" if steps.saved else ""
    counts = f"{len(steps.states) - len(to_run)} of {len(steps.states)} steps from the cache{saved}"
    if not to_run:
        return counts
    unknown = [step for step in to_run if step not in steps.estimates]
    if len(unknown) == len(to_run):
        return f"{counts}; the others take a time that is unknown before a first run like it"
    most = f"{counts}; the others at most about {duration(sum(steps.estimates.values()))}"
    return f"{most}, without {', '.join(unknown)}" if unknown else most


class _Unknown(dsl.Artifact):  # type: ignore[misc]  # KFP has no types
    """What a step that was not started would give."""


class _Looker(StepCache):
    """The cache of a run, which is looked at and not written.

    Args:
        place: The cache's place.
        looked: The plan that is filled.
        known: The steps that the cache has any entry of, made by the code of now.
    """

    def __init__(self, place: Path, looked: Plan, known: set[str]) -> None:
        super().__init__(str(run_cache.steps_folder(place)))
        self._looked = looked
        self._known = known

    def compute_key(
        self, component_name: str, image: str, full_command: Any, arguments: Any, *rest: Any, **more: Any
    ) -> str:
        given = [one for value in arguments.values() for one in (value if isinstance(value, list) else [value])]
        if any(isinstance(value, _Unknown) for value in given):
            step = component_name.removeprefix("comp-")
            self._looked.state(step, OPEN if step in self._known else RUN)
            return NO_KEY
        return super().compute_key(component_name, image, full_command, arguments, *rest, **more)

    def get(self, key: str) -> dict[str, Any] | None:
        if key == NO_KEY:
            return None
        outputs = super().get(key)
        there = Path(self._entry_path(key)).exists()
        self._looked.state(self._tasks[key].step, CACHED if outputs is not None else CHANGED if there else RUN)
        self._looked.images = self._images
        return outputs

    def use(self, key: str, outputs: dict[str, Any]) -> None:
        if seconds := self.seconds(key):
            step = self._tasks[key].step
            self._looked.saved[step] = self._looked.saved.get(step, 0.0) + seconds

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        pass


@contextlib.contextmanager
def _looking(looked: Plan, steps: _Looker | None) -> Iterator[None]:
    """Let KFP look for its tasks in `steps`, and start none."""

    def not_started(component_name: str, component_spec: Any, **other: Any) -> tuple[dict[str, Any], status.Status]:
        looked.states.setdefault(component_name.removeprefix("comp-"), RUN)
        made = component_spec.output_definitions
        return {name: _Unknown() for name in [*made.artifacts, *made.parameters]}, status.Status.SUCCESS

    with in_place_of_kfps(
        (task_dispatcher, "run_single_task_implementation", not_started),
        (kfp_cache, "get_local_cache", lambda: steps),
        loop.ONE_BY_ONE,
    ):
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Let nothing that KFP says be seen: no task is at work."""
    root, handler = logging.getLogger(), logging.NullHandler()  # without one logging would install its own, for good
    root.addHandler(handler)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)


def _estimate(step: str, before: list[run_cache.Kept], work: JsonDict, images: int | None) -> float | None:
    """Seconds that a step takes at most, by what it took before; None where nothing like it was run."""
    like = [
        (each.record, each.used)
        for each in before
        if each.step == step
        and "seconds" in each.record
        and (step in ANY_MODEL or each.record.get("work", {}).get("model") == work["model"])
        and (step in ANY_IMAGES or (images and each.record.get("images")))
    ]
    if not like:
        return None

    def more_images(record: JsonDict) -> float:
        return 1.0 if step in ANY_IMAGES or not images else float(images / record["images"])

    record, _ = min(like, key=lambda each: (abs(math.log(more_images(each[0]))), -each[1]))
    times = TIMES.get(step)
    longer = work[times] / max(1, record["work"].get(times, 1)) if times else 1.0
    return float(record["seconds"] * max(1.0, more_images(record)) * max(1.0, longer))


def _backbone(uri: str) -> str:
    if is_folder(uri):
        return _content(storage.sizes(uri))
    if uri == PATCHES:
        return "learnt from TRAIN in train, nothing is fetched"
    return "from the Hugging Face hub" if is_hub_id(uri) else "no folder and no hub id: fetch will refuse it"


def _content(sizes: dict[str, int]) -> str:
    return f"{len(sizes):,} file{'s' if len(sizes) != 1 else ''}, {run_cache.size_text(sum(sizes.values()))}"


def _pictures(sizes: dict[str, int]) -> int | None:
    """How many pictures there are; None when they are in tables, or in other files that only ingest opens."""
    return sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in sizes) or None
