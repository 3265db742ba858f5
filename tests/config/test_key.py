import ast
import inspect
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from kfp import kubernetes
from pydantic import Field
from pydantic.fields import FieldInfo

from natix_lib import config
from natix_lib.config import hardware, step_settings
from natix_lib.config.key import SOURCES, default, source_of, unit_of
from natix_lib.config.section import Section
from tests.config.readers import Read, keys_below, reads

ROOT = Path(__file__).parent.parent.parent
SECTIONS = {
    one
    for module in (config, hardware, step_settings)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Section)
}


def declared(section: type[Section]) -> Iterator[tuple[type[Section], str, FieldInfo]]:
    """The keys of a section and below it, without the sections themselves."""
    for holder, name in sorted(set(keys_below(section)), key=str):
        field = holder.model_fields[name]
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            yield holder, name, field


def undescribed(section: type[Section]) -> list[str]:
    """What a section and the keys below it leave untold."""
    faults = []
    for holder, name, field in declared(section):
        key = f"{holder.__name__}.{name}"
        if not re.fullmatch(r"[A-Z:g][ -~]{8,}\.", field.description or ""):  # ASCII, a sentence
            faults.append(f"{key} has no description")
        if _is_number(field.annotation) != bool(unit_of(field)) and not isinstance(field.default, str):
            faults.append(f"{key} is a number without a unit, or has one and is none")
        if not field.is_required() and not re.fullmatch(rf"({'|'.join(SOURCES)}): .*[^.]", source_of(field)):
            faults.append(f"{key} does not say where its default comes from")
    for inner in {section, *(holder for holder, _ in keys_below(section))}:
        if not (inner.__doc__ or "").endswith("."):
            faults.append(f"{inner.__name__} has no docstring")
    return faults


def _is_number(annotation: Any) -> bool:
    if get_origin(annotation) in (Literal, dict):
        return False
    arguments = get_args(annotation)
    return any(map(_is_number, arguments)) if arguments else annotation in (int, float)


def test_every_key_and_section_is_described_and_every_default_has_a_source() -> None:
    assert undescribed(config.Config) == []


def test_a_key_that_leaves_something_untold_is_found() -> None:
    class Planted(Section):
        bare: int = 3
        unitless: float = default(0.5, "A share of something.", source="choice: half of it")
        sourceless: str = default("a", "A text of some kind.", source="because")
        required: str

    faults = undescribed(Planted)
    assert [fault.partition(" ")[0] for fault in faults] == [
        "Planted.bare", "Planted.bare", "Planted.bare", "Planted.required", "Planted.sourceless", "Planted.unitless",
        "Planted",
    ]  # fmt: skip


@pytest.mark.slow
def test_descriptions_stand_without_the_source_files(tmp_path: Path) -> None:
    """Compiled files alone, in a zip: texts that pydantic reads off the source would be None here."""
    build = "import compileall, sys; sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, legacy=True))"
    package = tmp_path / "natix_lib"
    for path in [*(ROOT / "natix_lib").glob("*.py"), *(ROOT / "natix_lib" / "config").glob("*.py")]:
        target = package / path.relative_to(ROOT / "natix_lib")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    subprocess.run([sys.executable, "-c", build, str(package)], check=True)
    archive = tmp_path / "natix.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*.pyc"):
            if "__pycache__" not in path.parts:
                file.write(path, path.relative_to(tmp_path))
    code = "from natix_lib.config import explain; print(explain.__file__); print(explain.overview())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=tmp_path / "natix_lib" / "config", env={"PYTHONPATH": str(archive)},
    )  # fmt: skip
    first, *lines = done.stdout.splitlines()
    assert "natix.zip" in first and all(line.endswith(".") for line in lines) and len(lines) > 100


# A few sections are read by the names of their keys; who reads them, and which names.
READ_BY_NAME: dict[type[Section], set[str]] = {
    config.Config: {  # the settings of a step that takes whole sections
        name
        for settings in step_settings.SETTINGS.values()
        if "of" not in vars(settings)
        for name in settings.model_fields
    },
    config.Ratios: set(config.ROLE_RATIO_NAMES),  # split, for each role
    hardware.Toleration: set(inspect.signature(kubernetes.add_toleration).parameters),  # handed on by `given`
    config.Columns: {
        node.value
        for node in ast.walk(ast.parse((ROOT / "natix_lib/data/rows.py").read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    },
}


@pytest.fixture(scope="module")
def read_here() -> set[Read]:
    """What the source reads. Files that declare keys are left out: a validator's reading is no effect."""
    paths = [path for room in ("natix_lib", "pipelines", "components") for path in (ROOT / room).rglob("*.py")]
    declaring = ROOT / "natix_lib" / "config"
    sources = [path.read_text() for path in paths if path.parent != declaring or path.name == "step_settings.py"]
    return reads(sources, SECTIONS)


def unread(section: type[Section], by_attribute: set[Read]) -> list[str]:
    """Keys of a section and below it that nothing reads.

    A key with only one possible value needs no reader: its effect is that every other value is refused.
    """
    faults = []
    for holder, name in sorted(set(keys_below(section)), key=str):
        annotation = holder.model_fields[name].annotation
        single = get_origin(annotation) is Literal and len(get_args(annotation)) == 1
        if not single and (holder, name) not in by_attribute and name not in READ_BY_NAME.get(holder, ()):
            faults.append(f"{holder.__name__}.{name}")
    return faults


SETTINGS = [one for one in SECTIONS if one.__module__ == step_settings.__name__ and one.__name__.endswith("Settings")]


@pytest.mark.parametrize("section", [config.Config, hardware.Nodes, *sorted(SETTINGS, key=str)])
def test_every_key_is_read_by_what_it_is_for(section: type[Section], read_here: set[Read]) -> None:
    """What step settings only hand on is read by name in them, and must be read again from them."""
    assert unread(section, read_here) == []


def test_a_key_that_nothing_reads_is_found() -> None:
    class Inner(Section):
        seed: int = 0
        lr: float = 0.1

    class Planted(Section):
        inner: Inner = Inner()
        only: Literal["one"] = "one"
        alpha: Annotated[float, Field(gt=0)] = 0.5
        dumped: int = 3
        closure: int = 3
        kept: int = 3
        bound: int = 3

    source = """
from natix_lib import config
from natix_lib.config import Inner
from elsewhere import Planted

class Run:
    def __init__(self, settings: config.Planted | None, rest: Planted) -> None:
        self.settings, self.rest = settings, rest

    def go(self) -> None:
        print(self.settings.kept, self.rest.alpha)

def step(values: dict, other: object) -> None:
    settings = config.parse(config.Planted, values)
    inner, rest = settings.inner, other
    print(inner.lr, other.seed, rest.alpha, settings.model_dump(), lambda: settings.closure)
    settings.alpha = 3

def rebound(settings: config.Planted) -> None:
    print(settings.bound)
    settings = other
    print(settings.alpha)
"""
    assert unread(Planted, reads([source], {Planted, Inner})) == ["Inner.seed", "Planted.alpha", "Planted.dumped"]


@pytest.mark.parametrize(
    ("section", "name"), [(config.Scrc, "alpha"), (config.Explora, "seed"), (config.Columns, "lat")]
)
def test_a_key_planted_into_a_section_of_ours_is_found(section: type[Section], name: str, read_here: set[Read]) -> None:
    """The name alone does not do: other sections have keys of it that are read."""
    planted = type("Planted", (Section,), {"__annotations__": {name: int}, name: 0})
    assert unread(planted, read_here) == [f"Planted.{name}"]
    grown = type("Grown", (section,), {"__annotations__": {"min_slice": int}, "min_slice": 0})
    assert unread(grown, read_here) == ["Grown.min_slice"]
