"""A dry run says what the run after it does: whole runs are slow; the estimates are held to their rule in numbers."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.errors import ConfigError, StorageError
from natix_lib.run_cache import Kept
from natix_pipelines import dry_run, local
from natix_pipelines.dry_run import CACHED, CHANGED, OPEN, RUN
from natix_pipelines.training import steps_of
from tests.cli.test_cli import write_config
from tests.pipelines.test_local import Recorder
from tests.short_stack import on_a_short_stack
from tests.street_sets import write_images

WORK = {"model": ["vit", 224], "epochs": 10, "explora_steps": 100}
beside_its_run = pytest.mark.xdist_group("dry run")  # in one process, so that the run they start from is made once


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def took(step: str, seconds: float, images: int | None = 100, used: float = 0.0, **work: Any) -> Kept:
    record = {"seconds": seconds, "images": images, "work": WORK | work}
    return Kept(step, "0" * 64, None, 0, used, None, {name: value for name, value in record.items() if value})


def test_without_a_cache_all_is_to_run_and_no_folder_appears(tmp_path: Path, tiny_backbone: Path) -> None:
    path = write_config(tmp_path, write_images(tmp_path / "source", groups=2), tiny_backbone)
    before = tree(tmp_path), set(Path(tempfile.gettempdir()).glob("kfp-*"))
    plan = dry_run.plan(config.load(path), tmp_path / "out", tmp_path / "cache")
    assert set(steps_of(with_explora=False)) <= set(plan.states) and set(plan.states.values()) == {RUN}
    assert not plan.estimates and not plan.saved and plan.images == 6
    assert (tree(tmp_path), set(Path(tempfile.gettempdir()).glob("kfp-*"))) == before


def test_what_a_run_would_refuse_a_dry_run_refuses(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path / "gone")
    with pytest.raises(StorageError, match="gone does not exist"):
        dry_run.plan(config.load(path), tmp_path / "out", tmp_path / "cache")
    with pytest.raises(ConfigError, match="exists: name another folder"):
        dry_run.plan(config.load(path), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("step", "before", "images", "expected"),
    [
        ("split", [took("split", 8.0)], 250, 20.0),
        ("split", [took("split", 8.0)], 50, 8.0),  # a part of it is the same for any number
        ("split", [took("split", 8.0)], None, None),
        ("split", [took("split", 8.0, None)], 50, None),
        ("split", [took("train", 8.0)], 50, None),
        ("split", [took("split", 8.0), took("split", 90.0, 1000)], 900, 90.0),  # the most similar number
        ("split", [took("split", 8.0, used=2.0), took("split", 9.0, used=3.0)], 100, 9.0),  # the last
        ("split", [took("split", 8.0, model=["other"])], 100, 8.0),
        ("train", [took("train", 8.0, model=["other"])], 100, None),
        ("evaluate", [took("evaluate", 8.0, model=["other"])], 100, None),
        ("train", [took("train", 8.0, epochs=5)], 200, 32.0),
        ("train", [took("train", 8.0, epochs=20)], 100, 8.0),
        ("adapt", [took("adapt", 8.0, explora_steps=10)], 1000, 80.0),
        ("fetch", [took("fetch", 3.0, None)], None, 3.0),
    ],
)
def test_an_estimate_is_what_the_same_took_before_times_what_is_more(
    step: str, before: list[Kept], images: int | None, expected: float | None
) -> None:
    assert dry_run._estimate(step, before, WORK, images) == expected


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> tuple[Path, Path]:
    """A folder with a config for small images, and a cache in which the pipeline has run once."""
    folder = tmp_path_factory.mktemp("dry")
    path = write_config(folder, write_images(folder / "source", groups=40), tiny_backbone)
    on_a_short_stack(local.run, config.load(path), folder / "first", folder / "cache", Recorder())
    return folder, path


def calibration_is_lost(folder: Path) -> None:
    for policy in (folder / "cache").rglob("calibrate/scrcparams"):
        policy.unlink()


def a_file_is_added(folder: Path) -> None:
    (folder / "source" / "note.txt").write_text("new")


@pytest.mark.slow
@beside_its_run
@pytest.mark.parametrize(
    ("change", "overrides", "states"),
    [
        (None, (), {}),
        (None, ("scrc.alpha=0.25",), {"calibrate": RUN, "export": OPEN, "evaluate": OPEN}),
        (None, ("hardware.uncached_steps=[sweep]",), {"sweep": RUN, "export": OPEN, "evaluate": OPEN}),
        (calibration_is_lost, (), {"calibrate": CHANGED, "export": OPEN, "evaluate": OPEN}),
        (a_file_is_added, (), {"ingest": RUN} | dict.fromkeys(set(steps_of(False)) - {"ingest", "fetch"}, OPEN)),
    ],
)
def test_what_a_dry_run_calls_cached_is_exactly_what_the_run_takes(
    street: tuple[Path, Path], request: pytest.FixtureRequest, change: Any, overrides: tuple[str, ...], states: Any
) -> None:
    folder, path = street
    if change:
        change(folder)
    settings = config.load(path, overrides)
    out = folder / request.node.name.replace("/", "-")
    before = tree(folder)
    plan = dry_run.plan(settings, out, folder / "cache")
    assert tree(folder) == before
    display = Recorder()
    on_a_short_stack(local.run, settings, out, folder / "cache", display)
    ended = [event.split() for event in display.events if event.startswith(("cached", "finished"))]
    cached = {step for how, step in ended if how == "cached"}
    expected = dict.fromkeys(steps_of(with_explora=False), CACHED) | states
    assert {step: state for step, state in plan.states.items() if step != "check"} == expected
    for step, state in plan.states.items():
        assert (step in cached) == (state == CACHED) or state == OPEN, step
    assert set(plan.states) == {step for _, step in ended} == set(plan.saved) | set(plan.estimates)


@pytest.mark.slow
@beside_its_run
def test_the_command_shows_the_plan_and_ends_well(street: tuple[Path, Path]) -> None:
    folder, path = street
    command: list[str | Path] = [sys.executable, "-m", "natix_lib.cli", "run", "-c", path, "-o", folder / "none"]
    done = subprocess.run([*command, "--dry-run", "--cache", folder / "cache"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"data      {folder / 'source'}: 12") and lines[-1] == "nothing was run or written"
    assert all(len(line) <= 80 for line in lines[4:])
    assert any(line.startswith("train      from the cache") and " took " in line for line in lines)
    assert not (folder / "none").exists()
