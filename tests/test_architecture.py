"""The rules of CONTRIBUTING.md that can be read off the tree, and that the contracts on imports have teeth."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = sorted(path for folder in ("natix_lib", "components", "pipelines") for path in (ROOT / folder).rglob("*.py"))


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("natix_lib/data/groups.py", "import natix_lib.bundle.golden", "A room imports only from below it"),
        ("natix_lib/new_room.py", "import natix_lib.files", "A room imports only from below it"),
        (
            "natix_lib/steps/fetch.py",
            "import natix_components.fetch",
            "Pipelines stand on components, components on steps",
        ),
        (
            "natix_lib/distributed/exchange.py",
            "import natix_lib.distributed.node",
            "No circles, between rooms or within",
        ),
        ("natix_lib/reports/charts.py", "import kfp", "No room but the command line knows pipelines"),
        (
            "natix_lib/training/fit.py",
            "import natix_lib.config.step_settings",
            "The mathematics takes no step's settings",
        ),
        ("natix_lib/bundle/golden.py", "import torch", "A bundle and its server need neither torch nor transformers"),
        ("natix_lib/decisions/cut.py", "import yaml", "Decisions need numpy and scipy only"),
    ],
)
def test_an_arrow_that_the_contracts_forbid_breaks_them(tmp_path: Path, file: str, line: str, contract: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder, name in (("natix_lib",) * 2, ("components", "natix_components"), ("pipelines", "natix_pipelines")):
        shutil.copytree(ROOT / folder, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / file).open("a") as planted:
        planted.write(f"\n{line}\n")
    linter = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    report = subprocess.run(linter, cwd=tmp_path, capture_output=True, text=True)
    assert report.returncode == 1 and re.search(f"{contract}.* BROKEN", report.stdout), report.stdout


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [each.arg for each in every if each.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", [path for path in PYTHON if names(path).startswith("natix_lib")], ids=names)
def test_no_function_has_more_than_seven_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not (
            names(path).startswith("natix_lib/cli/")  # an option of a command is a parameter
            or (path.parent.name == "steps" and node.name == "run")  # an artifact of a step is one, given by keyword
        ):
            assert len(parameters(node)) <= 7, f"{names(path)}: {node.name}"


@pytest.mark.parametrize("path", PYTHON, ids=names)
def test_a_file_is_one_idea_with_a_docstring(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module says what was decided"


def test_nothing_unpickles_and_no_machine_is_named() -> None:
    unsafe = re.compile(r"pickle\.load|joblib|torch\.load\((?!.*weights_only=True)|yaml\.load\(|/home/|/root/")
    for path in PYTHON:
        assert not unsafe.search(path.read_text()), names(path)
