"""`natix cache`: what it lists and removes, and all that it must leave alone."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import dsl

from natix_lib import run_cache
from natix_lib.contracts import write_manifest
from natix_lib.errors import StorageError
from natix_lib.storage import staging
from natix_lib.storage.bucket import Object
from natix_pipelines.step_cache import StepCache
from tests.cli.test_cli import invoke

DAY = 86400.0
RUN = "natix-training-2026-11-26-01-47-40-{:06}"


def keep(cache: Path, step: str, number: int, size: int = 1000, days: float = 0.0) -> str:
    """Keep a step's result as KFP's runner does, made and last used some days ago; give its key."""
    folder = cache.absolute() / "artifacts" / RUN.format(number) / step
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "part").write_bytes(b"x" * size)
    write_manifest(folder / "images", "images", {"rows": 4, "index_sha256": "0" * 64})
    steps = StepCache(str(run_cache.steps_folder(cache)))
    key = steps.compute_key(f"comp-{step}", "natix-local-python:0123456789abcdef", ["run"], {"number": number})
    steps.put(key, {"images": dsl.Dataset(name="images", uri=str(folder / "images"))})
    then = time.time() - days * DAY
    for path in run_cache.steps_folder(cache).glob(f"{key}.*"):
        os.utime(path, (then, then))
    return key


def is_kept(cache: Path, step: str, number: int) -> bool:
    steps = StepCache(str(run_cache.steps_folder(cache)))
    key = steps.compute_key(f"comp-{step}", "natix-local-python:0123456789abcdef", ["run"], {"number": number})
    return steps.get(key) is not None


def leave(cache: Path, step: str, number: int, days: float = 0.0) -> Path:
    """Leave what a run that was killed leaves of a step."""
    folder = cache / "artifacts" / RUN.format(number) / step
    folder.mkdir(parents=True)
    (folder / "half").write_bytes(b"x" * 500)
    then = time.time() - days * DAY
    os.utime(folder, (then, then))
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != run_cache.LOCK}


def test_the_cache_is_listed_with_size_age_and_code(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    key = keep(cache, "ingest", 1, size=3_000_000, days=40)
    keep(cache, "train", 2)
    leave(cache, "adapt", 3, days=3)
    done = invoke("cache", "--cache", cache)
    lines = done.output.splitlines()
    assert done.exit_code == 0 and re.split(r"\s{2,}", lines[0].strip()) == [
        "step", "id", "size", "made", "last used", "took", "code",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:4]] == ["train", "ingest", "adapt"]
    assert re.split(r"\s{2,}", lines[2].strip()) == [
        "ingest", key[:8], "3.0 MB", "40 days ago", "40 days ago", "0.0 s", "01234567",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", lines[3].strip()) == ["adapt", "unfinished", "500 B", "3 days ago"]
    assert re.fullmatch(rf"2 finished steps and 1 unfinished \(500 B\), 3\.\d MB in {cache}", lines[-1])


def test_no_cache_yet_is_an_empty_one_and_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert invoke("cache").output == f"the cache {tmp_path / 'xdg' / 'natix'} is empty\n"
    assert invoke("cache", "remove", "--all").output.endswith("0 B freed\n")
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_home_is_told_in_one_line(tmp_path: Path) -> None:
    code = "import os, sys; os.getuid = lambda: 2_000_000_000; from natix_lib.cli.app import main; main()"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code, "cache"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (
        2,
        "error: no place for the cache, this user has no home folder: name a folder with --cache or XDG_CACHE_HOME\n",
    )


def test_what_is_named_is_removed_and_the_rest_is_still_a_result(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = keep(cache, "train", 1), keep(cache, "train", 2)
    keep(cache, "ingest", 3)
    half = leave(cache, "adapt", 4)
    done = invoke("cache", "remove", first[:8], "--cache", cache)
    assert re.fullmatch(rf"removed 1 of the cache {cache}, 1\.\d kB freed\n", done.output)
    assert not is_kept(cache, "train", 1) and is_kept(cache, "train", 2) and is_kept(cache, "ingest", 3)
    assert first not in str(files(cache)) and second in str(files(cache)) and half.exists()
    assert not (cache / "artifacts" / RUN.format(1)).exists()
    assert invoke("cache", "remove", "unfinished", "--cache", cache).exit_code == 0
    assert not half.exists() and is_kept(cache, "train", 2)
    assert invoke("cache", "remove", "train", "--cache", cache).exit_code == 0
    assert not is_kept(cache, "train", 2) and is_kept(cache, "ingest", 3)
    assert invoke("cache", "remove", "01234567", "--cache", cache).exit_code == 0
    assert files(cache) == {"artifacts", "artifacts/.steps"}


def test_what_is_old_is_removed_by_its_last_use(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number, days in enumerate([1, 29, 31, 400]):
        keep(cache, "train", number, days=days)
    assert is_kept(cache, "train", 3)  # which uses it
    assert invoke("cache", "remove", "--older-than", "30d", "--cache", cache).output.startswith("removed 1 of")
    assert [is_kept(cache, "train", number) for number in range(4)] == [True, True, False, True]


def test_all_is_all_that_is_natixs_and_nothing_else(tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis").write_text("years")
    keep(cache, "ingest", 1)
    half = leave(cache, "adapt", 2)
    (half / "link").symlink_to(outside)
    (half.parent / "train").symlink_to(outside)
    (cache / "artifacts" / RUN.format(9)).symlink_to(outside)
    (cache / "failed.log").write_text("log")
    (run_cache.steps_folder(cache) / ".kfp_cache_x.tmp").write_text("{")
    (cache / "mine").write_text("kept")
    (cache / "artifacts" / "mine").mkdir()
    entry = run_cache.steps_folder(cache) / f"{'a' * 64}.json"
    entry.write_text(f'{{"images": {{"uri": "{outside}/thesis"}}}}')
    assert invoke("cache", "remove", "--all", "--cache", cache).exit_code == 0
    assert files(cache) == {"artifacts", "artifacts/.steps", "artifacts/mine", "mine", f"artifacts/{RUN.format(9)}"}
    assert (outside / "thesis").read_text() == "years"


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "x").touch()
    assert invoke("cache", "--cache", tmp_path).output == f"the cache {tmp_path} is empty\n"
    done = invoke("cache", "remove", "--all", "--cache", tmp_path)
    assert str(done.exception) == f"{tmp_path} is no cache of natix: it has no folder artifacts/.steps"
    real = tmp_path / "real"
    keep(real, "train", 1)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "artifacts").symlink_to(real / "artifacts")
    assert "is no cache of natix" in str(invoke("cache", "remove", "--all", "--cache", tmp_path / "linked").exception)
    assert is_kept(real, "train", 1)


def test_a_cache_that_is_reached_by_a_link_is_one_cache(tmp_path: Path) -> None:
    keep(tmp_path / "disk", "train", 1)
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    (entry,) = run_cache.kept(tmp_path / "cache")
    assert entry.step == "train" and run_cache.remove(tmp_path / "cache", [entry]) > 1000
    assert files(tmp_path / "disk") == {"artifacts", "artifacts/.steps"}


def test_nothing_is_removed_while_a_run_is_at_work_and_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keep(cache, "train", 1)
    code = (
        "import sys, time; from pathlib import Path; from natix_lib import run_cache\n"
        "with run_cache.in_use(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(cache)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout and run.stdout.readline() == "held\n"
        with run_cache.in_use(cache):  # two runs share it
            pass
        done = invoke("cache", "remove", "--all", "--cache", cache)
        run.kill()
    assert str(done.exception) == f"a run is at work with the cache {cache}: nothing is removed until it ends"
    assert is_kept(cache, "train", 1)
    assert invoke("cache", "remove", "--all", "--cache", cache).exit_code == 0 and not is_kept(cache, "train", 1)


def test_a_removal_that_is_stopped_leaves_no_half_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    keep(cache, "train", 1)

    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        run_cache.remove(cache, run_cache.kept(cache))
    monkeypatch.undo()
    assert not is_kept(cache, "train", 1)
    assert [(each.step, each.key) for each in run_cache.kept(cache)] == [("train", "")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to remove: a step, an id, a version of the code, unfinished, --older-than 30d or --all"),
        (("--all", "train"), "--all removes all: give no name and no --older-than beside it"),
        (("trian",), "the cache {cache} holds nothing that is called trian: natix cache lists it"),
        (("--older-than", "30"), "--older-than must be a number and m, h, d or w, such as 30d, got '30'"),
        (("--older-than", "-1d"), "--older-than must be a number and m, h, d or w, such as 30d, got '-1d'"),
        (("--older-than", ""), "--older-than must be a number and m, h, d or w, such as 30d, got ''"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_removes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    cache = tmp_path / "cache"
    keep(cache, "train", 1, days=50)
    done = invoke("cache", "remove", *arguments, "--cache", cache)
    assert str(done.exception) == message.format(cache=cache) and is_kept(cache, "train", 1)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (1_500_000_000, "1.5 GB"), (5_000_000_000_000_000, "5000 TB")],
)  # fmt: skip
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert run_cache.size_text(size) == text


def test_what_is_kept_of_a_bucket_is_listed_by_its_address_and_removed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    keep(cache, "ingest", 1)
    monkeypatch.setenv("NATIX_CACHE", str(cache))
    with run_cache.buckets() as place, staging.kept(place, "s3://street/set", 3) as here:
        with pytest.raises(StorageError, match="a run is at work with the cache"):
            run_cache.remove(cache, run_cache.kept(cache))
        here.tree.mkdir()
        listed = Object("set/a", "s3://street/set/a", 3, "", (3, "tag"), None)
        here.put(listed, here.tree / "a", lambda source, path: path.write_bytes(b"abc"))
    assert [each.step for each in run_cache.kept(cache)] == ["s3://street/set", "ingest"]
    leave(cache, "train", 2)
    said = invoke("doctor", "--cache", str(cache)).output
    counted = invoke("cache", "--cache", str(cache)).output.splitlines()[-1].removesuffix(f" in {cache}")
    assert counted.startswith("1 finished steps, objects of 1 buckets (") and f"{cache}, {counted}\n" in said
    removed = invoke("cache", "remove", "s3://street/set", "--cache", str(cache))
    assert removed.exit_code == 0 and not (cache / "buckets").exists() and is_kept(cache, "ingest", 1)
