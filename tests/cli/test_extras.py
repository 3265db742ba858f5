"""What works in the base install, and what each other command says there; the other packages are hidden in a child."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from natix_lib.cli.extras import EXTRAS, NEEDS, is_here, missing
from natix_lib.contracts import STEPS, TASKS
from tests.cli.test_cli import ROOT, write_config

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def plain(name: str) -> str:
    return re.split(r"[ ;<>=!~\[(]", name)[0].lower().replace("_", "-").replace(".", "-")


def closure(names: set[str]) -> set[str]:
    """Distributions and all that they need without extras."""
    done: set[str] = set()
    while names:
        name = names.pop()
        done.add(name)
        needs = importlib.metadata.requires(name) or []
        names |= {plain(need) for need in needs if ";" not in need} - done
    return done


def hidden() -> list[str]:
    """Top-level modules of every distribution here that the base install does not bring; `google` is protobuf's too."""
    base = closure({plain(name) for name in PROJECT["dependencies"]}) | {"natix", "pip", "setuptools"}
    modules = importlib.metadata.packages_distributions()
    return sorted(
        module for module, owners in modules.items() if module.isidentifier() and not {plain(o) for o in owners} & base
    )


HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules} or name.startswith(("google.cloud", "google.auth", "google.api_core")):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def in_base(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDE.format(modules=set(hidden())) + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)


def natix(*arguments: object) -> subprocess.CompletedProcess[str]:
    return in_base("from natix_lib.cli import main; main()", *arguments)


def test_nothing_but_scoring_is_left_to_the_base_install() -> None:
    names = {plain(name) for name in PROJECT["dependencies"]}
    assert names == {
        "cykooz-resizer", "jinja2", "numpy", "scipy", "pillow", "onnxruntime", "pydantic", "pyyaml", "typer", "rich",
    }  # fmt: skip
    assert {"torch", "pyarrow", "kfp", "safetensors", "pandas", "starlette"} <= set(hidden())


@pytest.mark.slow
def test_scoring_and_configs_work_in_the_base_install(tmp_path: Path, tiny_bundle: Path) -> None:
    image = next((tiny_bundle / "golden").glob("*.jpg"))
    config = write_config(tmp_path, tmp_path)
    for arguments in (
        ["--help"], ["predict", "--bundle", tiny_bundle, image], ["verify", "--bundle", tiny_bundle],
        ["review", "--bundle", tiny_bundle, image, "-o", tmp_path / "review.html"],
        ["config", "-c", config], ["config", "--schema"], ["config", "--explain"], ["train", "-h"], ["doctor"],
    ):  # fmt: skip
        done = natix(*arguments)
        assert done.returncode == 0 and done.stdout, done.stderr
        expected = r"1 image: .*\n(un)?certified: .*\n" if arguments[0] in ("predict", "review") else ""
        assert re.fullmatch(expected, done.stderr), done.stderr
    done = in_base(
        "import numpy, natix_lib.decisions as d; r = numpy.random.default_rng(0); z = r.normal(size=(99, 2))\n"
        "print(d.certify_selection(d.log_odds(z), z.argmax(1) != z.argmax(1), alpha=0.05, delta=0.1).certified)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("command", NEEDS)
def test_without_its_extra_a_command_is_one_line_before_it_reads_or_writes(tmp_path: Path, command: str) -> None:
    absent, new = tmp_path / "absent", tmp_path / "new"
    inputs = [f"--{name.replace('_', '-')}={absent}" for name in TASKS[command].inputs] if command in TASKS else []
    config = [f"-c{absent}"] if command in (*TASKS, "run", "recalibrate") else []
    target = [f"--bundle={absent}"] if command in ("serve", "recalibrate") else []
    target += [f"-o{new}"] if command != "serve" else []
    place = [absent] if command == "data check" else []
    done = natix(*command.split(), *config, *inputs, *target, *place)
    extra = "serve" if command == "serve" else "train"
    expected = rf"error: the package \S+ is missing here: pip install 'natix\[{extra}\]'\n"
    assert (done.returncode, done.stdout) == (2, "") and re.fullmatch(expected, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_bucket_in_a_config_is_told_before_a_step_reads_it(tmp_path: Path) -> None:
    from natix_lib.cli.extras import require_places
    from natix_lib.config import load

    require_places(load(write_config(tmp_path, tmp_path), []))
    path = write_config(tmp_path, tmp_path)
    path.write_text(path.read_text().replace(f"data_root: {tmp_path}", "data_root: gs://bucket/a"))
    done = in_base(
        "from natix_lib import config; from natix_lib.cli.extras import require_places\n"
        "try: require_places(config.load(sys.argv[1], []))\n"
        "except Exception as error: print(error)", path,
    )  # fmt: skip
    assert done.stdout == "the package google.cloud.storage is missing here: pip install 'natix[gcs]'\n", done.stderr


def test_the_table_names_the_extras_of_the_project_and_modules_that_they_bring() -> None:
    owners = importlib.metadata.packages_distributions()
    brought = {extra: {plain(name) for name in PROJECT["optional-dependencies"][extra]} for extra in EXTRAS}
    for extra, modules in EXTRAS.items():
        assert all(is_here(module) for module in modules), extra
        for module in modules:
            distributions = {plain(owner) for owner in owners[module.partition(".")[0]]}
            assert distributions & brought[extra], (extra, module)
        assert len(modules) == len(brought[extra]), extra
    assert {module for needs in NEEDS.values() for module in needs} <= {m for row in EXTRAS.values() for m in row}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("torch.nn", "the package torch is missing here: pip install 'natix[train]'"),
        ("kfp.kubernetes", "the package kfp.kubernetes is missing here: pip install 'natix[pipelines]'"),
        ("google.auth.exceptions", "the package google.cloud.storage is missing here: pip install 'natix[gcs]'"),
        ("boto3", "the package boto3 is missing here: pip install 'natix[s3]'"),
        ("google.cloud.aiplatform", "the package google.cloud.aiplatform is missing here: pip install 'natix[vertex]'"),
        ("numpy.linalg", "the package numpy is missing here: pip install 'natix'"),
    ],
)
def test_a_missing_module_is_named_with_the_word_that_installs_it(module: str, line: str) -> None:
    assert str(missing(module)) == line


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_imports_what_the_table_says_that_it_needs(step: str) -> None:
    modules = {module for row in EXTRAS.values() for module in row}
    code = (
        f"import sys, natix_lib.steps.{step}\n"
        f"print(*sorted(m for m in {sorted(modules)} if m in sys.modules))"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=ROOT)
    brought_along = {
        "anyio",
        "boto3",
        "kfp",
        "huggingface_hub",
        "datasets",
        "sklearn",
        "transformers",
        "onnx",
    }  # by others, or when used
    assert done.returncode == 0 and set(done.stdout.split()) - brought_along <= set(NEEDS[step]), done.stdout
