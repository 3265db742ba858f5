"""Who may import whom, and how long a file may be: the rules of CONTRIBUTING.md, read off the tree."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = sorted(path for folder in ("natix_lib", "components", "pipelines") for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PYTHON, ids=names)
def test_imports_go_from_pipelines_to_components_to_steps_to_algorithms(path: Path) -> None:
    found, name = imports(path), names(path)
    starts = {module.split(".")[0] for module in found}
    if name.startswith("natix_lib") and not name.startswith("natix_lib/cli"):
        assert not starts & {"natix_components", "natix_pipelines", "kfp"}
    if name.startswith("natix_lib") and not name.startswith(("natix_lib/steps", "natix_lib/cli")):
        assert not any(module.startswith("natix_lib.steps") for module in found)
    if name.startswith("natix_lib/decisions"):
        assert starts - sys.stdlib_module_names <= {"numpy", "scipy", "natix_lib"}
    if name == "natix_lib/bundle/runtime.py":
        assert not starts & {"torch", "transformers"}
    if name.startswith("components"):
        assert "natix_pipelines" not in starts
    if name != "natix_lib/cli.py" and not name.startswith("natix_lib/demo"):
        assert not any(module.startswith("natix_lib.demo") for module in found)


@pytest.mark.parametrize("path", PYTHON, ids=names)
def test_a_file_is_one_idea_with_a_docstring(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 480
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module says what was decided"


def test_nothing_unpickles_and_no_machine_is_named() -> None:
    unsafe = re.compile(r"pickle\.load|joblib|torch\.load\((?!.*weights_only=True)|yaml\.load\(|/home/|/root/")
    for path in PYTHON:
        assert not unsafe.search(path.read_text()), names(path)
