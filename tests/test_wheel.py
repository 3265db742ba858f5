"""The wheel: its names, its files, and a run beside folders that have the names of ours. In `make test-slow`."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import ROOT, write_config
from tests.street_sets import write_images

pytestmark = pytest.mark.slow
NAMES = {"natix_lib": "natix_lib", "components": "natix_components", "pipelines": "natix_pipelines"}
PACKED = (".py", ".yaml", ".j2", ".css", ".js", ".typed")


def succeed(*command: object, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=900, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy: a build leaves folders behind, whose files the next one takes."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (folder / "source").mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / "source")
    for name in NAMES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    succeed(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source"
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_installs_names_of_its_own_and_all_that_the_folders_hold(wheel: Path) -> None:
    files = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    names = {path.parts[0] for path in files}
    assert {name for name in names if not name.endswith(".dist-info")} == set(NAMES.values())
    tracked = [path for name in NAMES for path in (ROOT / name).rglob("*") if path.suffix in PACKED]
    in_tree = {Path(NAMES[path.relative_to(ROOT).parts[0]], *path.relative_to(ROOT).parts[1:]) for path in tracked}
    assert {path for path in files if path.suffix in PACKED} == in_tree


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and the dependencies from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(succeed(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A .pth that stands in a folder that a .pth names is not read, so the editable install is not taken along.
    lent = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "lent.pth").write_text("\n".join(lent))
    pip = (sys.executable, "-m", "pip", "--python", python)
    succeed(*pip, "install", "--no-deps", "--no-index", "--ignore-installed", wheel)
    return python


def test_a_run_beside_foreign_pipelines_and_components_takes_its_own(
    installed: Path, tmp_path: Path, tiny_backbone: Path
) -> None:
    config = write_config(tmp_path, write_images(tmp_path / "source", groups=40), tiny_backbone)
    here = tmp_path / "empty"
    for name in ("pipelines", "components"):
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text(f"raise RuntimeError('this is a foreign {name}')\n")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    origin = "import natix_components, natix_pipelines as p, natix_lib; print(natix_components, p, natix_lib)"
    places = re.findall(r"from '(.*?)'", succeed(installed, "-c", origin, cwd=here, env=clean))
    assert len(places) == 3 and all(place.startswith(str(installed.parent.parent)) for place in places)

    run = ("run", "-c", config, "--cache", tmp_path / "cache", "-o")
    foreign_first = {**clean, "PYTHONPATH": str(here)}
    out = succeed(installed.parent / "natix", *run, tmp_path / "first", cwd=here, env=foreign_first)
    assert "TEST, " in out and (tmp_path / "first" / "bundle" / "bundle.json").is_file()
    succeed(installed, "-m", "natix_lib.cli", *run, tmp_path / "second", cwd=here, env=clean)  # all is cached
    assert (tmp_path / "second" / "report.html").is_file()


def test_the_base_install_from_the_wheel_alone_predicts(wheel: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    venv.create(tmp_path / "base", with_pip=True)
    python, natix = (tmp_path / "base" / "bin" / name for name in ("python", "natix"))
    succeed(python, "-m", "pip", "install", "--quiet", wheel)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    names = succeed(python, "-m", "pip", "list", "--format=freeze", env=clean).lower()
    assert "onnxruntime==" in names and not re.search("^(torch|pyarrow|kfp|nvidia|pandas)", names, re.MULTILINE)
    image = tiny_bundle / "golden" / "large.jpg"
    answer = succeed(natix, "predict", "--bundle", tiny_bundle, image, cwd=tmp_path, env=clean)
    assert answer.startswith('{"image": ')
    assert "promise" in succeed(natix, "verify", "--bundle", tiny_bundle, cwd=tmp_path, env=clean)
