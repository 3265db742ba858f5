"""Every command with every kind of wrong path: exit code 2 and one line on stderr that names it."""

import builtins
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_lib import cli
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_lib.strict_yaml import read_yaml
from tests.cli.test_cli import ROOT, write_config

Natix = Callable[..., tuple[int, str]]


@pytest.fixture
def natix_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Natix:
    """The command line in this process; gives the exit code and stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["natix", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def wrong(tmp_path: Path) -> dict[str, str]:
    """Paths that nothing can be read from, and as many that nothing can be written to."""
    (tmp_path / "file").write_text("no artifact")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    return {
        "absent": str(tmp_path / "absent"),
        "file": str(tmp_path / "file"),
        "folder": str(tmp_path / "folder"),
        "below a file": str(tmp_path / "file" / "below"),
        "pipe": str(tmp_path / "pipe"),
        "device": "/dev/zero",
        "nul": "a\0b",
        "empty": "",
        "dash": "-",
        "long": "x" * 5000,
        "home": "~/images",
        "web": "https://user:pass@host/a",
        "bucket": "gs://bucket/a",
    }


READS = [
    ("config", "-c {wrong}"),
    ("run", "-c {wrong} -o {new}"),
    ("predict", "--bundle {wrong} {image}"),
    ("serve", "--bundle {wrong}"),
    ("review", "--bundle {wrong} {image} -o {new}"),
    ("ingest", "-c {wrong} -o {new}"),
    *(
        (
            step,
            " ".join(
                ["-c {config} -o {new}", *(f"--{name.replace('_', '-')} {{wrong}}" for name in STEPS[step].inputs)]
            ),
        )
        for step in STEPS
        if STEPS[step].inputs
    ),
]
WRITES = [
    ("draw", "--images 60 -o {wrong}"),
    ("backbone", "--hidden-size 64 --layers 1 -o {wrong}"),
    ("demo", "--images 60 -o {wrong}"),
    ("run", "-c {config} -o {wrong}"),
    ("init", "{config} -o {wrong}"),
]
INPUTS = [
    "absent",
    "file",
    "folder",
    "below a file",
    "pipe",
    "device",
    "nul",
    "empty",
    "dash",
    "long",
    "home",
    "web",
    "bucket",
]


def one_line(code: int, errors: str) -> str:
    assert code == 2 and "Traceback" not in errors, errors
    (line,) = errors.splitlines()
    assert line.startswith("error: ") and len(line) < 1100 and "pass@" not in line, line
    return line


@pytest.mark.parametrize(("command", "arguments"), READS, ids=[name for name, _ in READS])
def test_what_cannot_be_read_is_one_line_for_every_command(
    natix_here: Natix, tmp_path: Path, wrong: dict[str, str], command: str, arguments: str
) -> None:
    config = write_config(tmp_path, tmp_path / "folder")
    for name in INPUTS[:-1] if command == "serve" else INPUTS:  # which reads buckets
        names = {"wrong": wrong[name], "new": tmp_path / "new", "image": wrong["file"], "config": config}
        line = one_line(*natix_here(command, *(part.format(**names) for part in arguments.split(" "))))
        if name in ("web", "bucket"):
            assert "must be a local path, not an address" in line and "//" in line
        elif name == "nul":
            assert "a\\x00b must not contain a NUL" in line
        elif name == "home":
            assert "~ is not expanded" in line
        elif name in ("empty", "dash"):
            assert f"a path must name a file or folder, got {wrong[name]!r}" in line
        elif name in ("pipe", "device"):
            assert f"{wrong[name]} is neither a file nor a folder" in line
        else:
            assert wrong[name][:200] in line
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").rglob("*.json"))


@pytest.mark.parametrize(("command", "arguments"), WRITES, ids=[name for name, _ in WRITES])
def test_what_cannot_be_written_is_one_line_for_every_command(
    natix_here: Natix, tmp_path: Path, wrong: dict[str, str], command: str, arguments: str
) -> None:
    config = write_config(tmp_path, tmp_path / "folder")
    for name in (name for name in INPUTS if name != "absent"):
        names = {"wrong": wrong[name], "config": config}
        line = one_line(*natix_here(command, *(part.format(**names) for part in arguments.split(" "))))
        if name in ("file", "folder", "below a file"):
            assert wrong[name] in line


NEEDS = [
    ("demo", "--images 60 -o {new}", "torch", "natix[train]"),
    ("demo", "--images 60 -o {new}", "kfp", "natix[train]"),
    ("run", "-c {config} -o {new}", "kfp", "natix[train]"),
    ("backbone", "-o {new}", "transformers", "natix[train]"),
    ("fetch", "-c {config} -o {new}", "torch", "natix[train]"),
    (
        "train", "-c {config} -o {new} --train-set a --val-select-set a --val-calib-set a --backbone a",
        "torch", "natix[train]",
    ),
    ("serve", "--bundle {new}", "uvicorn", "natix[serve]"),
    ("serve", "--bundle gs://bucket/a", "google.cloud.storage", "natix[gcs]"),
    ("serve", "--bundle s3://bucket/a", "boto3", "natix[s3]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "arguments", "package", "extra"), NEEDS, ids=[f"{row[0]}-{row[2]}" for row in NEEDS]
)
def test_a_package_that_is_missing_is_told_before_anything_is_written(
    natix_here: Natix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    command: str, arguments: str, package: str, extra: str,
) -> None:  # fmt: skip
    """The package is hidden from this process, as where it was never installed."""
    imports, specs = builtins.__import__, importlib.util.find_spec

    def hidden(name: str) -> bool:
        return f"{name}.".startswith(f"{package}.")

    def without(name: str, *rest: Any) -> object:
        if hidden(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imports(name, *rest)

    rooms = ("steps", "serving", "training", "explora", "backbones", "distributed")
    forgotten = ("natix_pipelines", "natix_components", *(f"natix_lib.{room}" for room in rooms))
    for module in [name for name in sys.modules if hidden(name) or name.startswith(forgotten)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if hidden(name) else specs(name, *rest))
    names = {"new": tmp_path / "new", "config": write_config(tmp_path, tmp_path)}
    line = one_line(*natix_here(command, *(part.format(**names) for part in arguments.split(" "))))
    assert line == f"error: the package {package} is missing here: pip install '{extra}'"
    assert not (tmp_path / "new").exists()


def child(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "natix_lib.cli", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=600, cwd=ROOT, **options)


@pytest.mark.slow
def test_an_output_that_takes_nothing_is_one_line(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path)
    with Path("/dev/full").open("w") as full:
        done = child(["config", "-c", str(path)], stdout=full)
    assert one_line(done.returncode, done.stderr) == "error: cannot write the output: No space left on device"
    done = child(["--version"], preexec_fn=lambda: os.close(1))
    assert one_line(done.returncode, done.stderr).startswith("error: standard output is closed")


@pytest.mark.slow
def test_without_home_and_utf8_the_short_commands_work(tmp_path: Path, tiny_bundle: Path) -> None:
    path = write_config(tmp_path, tmp_path / "straße")
    (tmp_path / "c\udcff.jpg").write_bytes(b"")
    bare = {
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
    }
    assert child(["--help"], env=bare, stdout=subprocess.PIPE).returncode == 0
    done = child(["config", "-c", str(path)], env=bare, stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.isascii()
    assert read_yaml(done.stdout, "printed")["data"]["data_root"] == str(tmp_path / "straße")
    arguments = ["predict", "--bundle", str(tiny_bundle), str(tmp_path / "c\udcff.jpg")]
    done = child(arguments, env=bare, stdout=subprocess.PIPE)
    assert done.returncode == 2 and done.stdout.isascii() and done.stderr.isascii()
    assert json.loads(done.stdout) == {"image": str(tmp_path / "c\udcff.jpg"), "error": "the file is empty"}
    assert "c\\udcff.jpg: the file is empty" in done.stderr.splitlines()[0]


def test_a_step_takes_no_artifact_of_another(natix_here: Natix, tmp_path: Path, tiny_bundle: Path) -> None:
    config = write_config(tmp_path, tmp_path)
    line = one_line(
        *natix_here(
            "evaluate", "-c", config, f"--test-set={tiny_bundle}", f"--bundle={tiny_bundle}", "-o", tmp_path / "out"
        )
    )
    assert f"test_set folder {tiny_bundle} has no {ARTIFACTS['test_set'].manifest}" in line
