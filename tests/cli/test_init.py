"""`natix init` as a person types it: what it says, the config that it leaves, and that it leaves none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from natix_lib import cli, config
from natix_lib.config.step_settings import step_settings
from natix_lib.decisions import certifiable_alpha, needed_independent
from natix_lib.errors import NatixError
from tests.data.layouts import files
from tests.street_sets import run_step, write_images
from tests.survey.test_look import pictures

ROOT = Path(__file__).parents[2]
BLOCKED = (
    "torch",
    "datasets",
    "pandas",
    "pyarrow",
    "kfp",
    "transformers",
    "sklearn",
    "google",
    "matplotlib",
    "lightning",
)
BASE_INSTALL = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import importlib.util
present = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {BLOCKED!r} else present(name, package)
sys.meta_path.insert(0, Missing())
from natix_lib.cli import main
main()
"""


def init(*arguments: object, width: int = 200) -> Result:
    return CliRunner().invoke(cli.app, ["init", *map(str, arguments)], env={"COLUMNS": str(width)})


def refusal(*arguments: object) -> str:
    error = init(*arguments).exception
    assert isinstance(error, NatixError)
    return str(error)


def base_install(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BASE_INSTALL, "init", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)


def test_the_config_of_a_class_folder_loads_and_names_the_next_command(tmp_path: Path) -> None:
    root, path = pictures(tmp_path / "set", "None", "Roadwork", count=30), tmp_path / "street.yaml"
    result = init(root, "--output", path)
    assert result.exit_code == 0, result.output
    loaded = config.load(path)
    assert loaded.data.data_root == str(root) and loaded.data.positive_classes == ["Roadwork"]
    assert loaded.export.policy == "calibrate" and loaded.split == config.Split()
    assert "60, in a folder for each class" in result.stdout and "None 30, Roadwork 30" in result.stdout
    assert f"natix run --config {path} --output runs/first" in result.stdout
    text = " ".join(path.read_text().replace("\n#", " ").split())
    assert " classes: None 30, Roadwork 30." in text and "neighbours a second apart often are not" in text
    assert "natix config --explain KEY" in text


def test_what_can_be_certified_is_plain_arithmetic_and_the_alpha_in_reach_is_shown_as_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "street.yaml"
    said = " ".join(init(pictures(tmp_path / "set", "None", "Roadwork", count=30), "-o", path).stdout.split())
    groups = int(said.partition("VAL_CALIB has about ")[2].partition(" ")[0])
    assert abs(groups - 0.15 * 60) <= 1 and f"VAL_CALIB {groups}, TEST" in said  # each picture is a group
    assert f"alpha 0.05 at delta 0.1 needs {needed_independent(0.05, 0.1, has_start=True)} without an error" in said
    shown = next(line for line in path.read_text().splitlines() if line.startswith("#   alpha: "))
    assert 0 <= float(shown.rpartition(" ")[2]) - certifiable_alpha(groups, 0.1, has_start=True) < 0.01
    assert config.load(path).scrc == config.Scrc()


def test_comments_that_are_taken_away_leave_a_config_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "street.yaml"
    init(pictures(tmp_path / "set", "dogs", "cats", count=20), "-o", path)
    lines = path.read_text().splitlines()
    keys = ("# scrc:", "#   alpha: ", "  # positive_classes: ")
    path.write_text("\n".join(line.replace("# ", "", 1) if line.startswith(keys) else line for line in lines))
    path.write_text(path.read_text().replace("#   alpha", "  alpha"))
    loaded = config.load(path)
    assert loaded.scrc.alpha != config.Scrc().alpha and loaded.data.positive_classes == ["dogs"]


def test_what_is_set_goes_into_the_config_and_decides_an_unclear_layout(tmp_path: Path) -> None:
    root, path = pictures(tmp_path / "set", "images/a", "images/b"), tmp_path / "street.yaml"
    assert "set data.class_names" in refusal(root, "-o", path) and not path.exists()
    result = init(
        root, "-o", path, "--set", "data.class_names=[a, b]", "--set", "model.image_size=32", "-s", "scrc.alpha=0.4"
    )
    assert result.exit_code == 0, result.output
    loaded = config.load(path)
    assert loaded.data.class_names == ["a", "b"] and loaded.model.image_size == 32 and loaded.scrc.alpha == 0.4


def test_a_relative_place_is_written_absolute_and_a_link_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "a set", "None", "Roadwork")
    (tmp_path / "current").symlink_to("a set")
    assert init("current").exit_code == 0
    assert config.load("natix.yaml").data.data_root == str(tmp_path / "current")


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    assert refusal(tmp_path, "-o", tmp_path / "mine.yaml").endswith(
        "mine.yaml exists: name another file as --output, or remove it"
    )
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    assert "exists" in refusal(tmp_path, "-o", tmp_path / "dangling.yaml")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("notes.txt", "notes.txt is no folder"),
        ("~/set", "must be written out: ~ is not expanded here"),
        ("https://x.org/set", "must be a local path"),
        ("gs://street", "must read gs://bucket/path"),
        ("", "must name a file or folder"),
        ("set", "all 4 images lie in one folder"),
    ],
)
def test_a_wrong_place_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files(tmp_path, "notes.txt")
    pictures(tmp_path / "set", "a", count=4)
    error = init(place).exception
    assert isinstance(error, NatixError) and pytest.raises(NatixError, match=message).matches(error)
    assert not (tmp_path / "natix.yaml").exists()


def test_names_with_spaces_line_breaks_and_any_letters_stay_on_their_lines(tmp_path: Path) -> None:
    root = pictures(tmp_path / "straßen bilder: 1 # 2", "keine Baustelle", "Baustelle\x1b[31m", count=6)
    files(root, "Baustelle\x1b[31m/bad\nname.jpg")
    path = tmp_path / "über.yaml"
    result = init(root, "-o", path)
    assert result.exit_code == 0 and "\x1b" not in result.stdout
    assert config.load(path).data.data_root == str(root) and "straßen bilder" in path.read_text()
    assert all(line.startswith(("#", " ")) or line.endswith(":") or not line for line in path.read_text().splitlines())


def test_a_class_with_too_few_pictures_is_told_as_split_would(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "None", count=9)
    pictures(root, "Roadwork", count=3)
    result = init(root, "-o", tmp_path / "x.yaml")
    assert result.exit_code == 0
    assert "would refuse this: class Roadwork has 3 groups, 4 splits need at least one each" in result.stdout
    assert config.load(tmp_path / "x.yaml")


def test_a_rare_class_is_told_with_its_share(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "None", count=40)
    pictures(root, "Roadwork", count=4)
    assert "Roadwork (9.1%) is rare" in init(root, "-o", tmp_path / "x.yaml").stdout


def test_a_drive_in_two_given_splits_is_told(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "a", "b")
    rows = [f"{name}/{n}.jpg,{name},drive,{'train' if n < 4 else 'test'}" for name in "ab" for n in range(8)]
    (root / "manifest.csv").write_text("\n".join(["image,label,group,split", *rows]))
    assert "would refuse this: given splits leak" in init(root, "-o", tmp_path / "x.yaml").stdout


@pytest.mark.parametrize("width", [80, 40])
def test_no_line_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    path = tmp_path / "x.yaml"
    result = init(pictures(tmp_path / "set", "None", "Roadwork"), "-o", path, width=width)
    assert max(map(len, result.stdout.partition("\nconfig  ")[0].splitlines())) <= width


def test_a_base_install_looks_at_a_class_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "None", "Roadwork")
    done = base_install(tmp_path, "set")
    assert done.returncode == 0, done.stderr
    assert "(asked nvidia-smi)" in " ".join(done.stdout.split()) and (tmp_path / "natix.yaml").is_file()
    assert "None 8, Roadwork 8" in done.stdout


def test_a_base_install_says_what_parquet_needs(tmp_path: Path) -> None:
    files(tmp_path / "set", "train.parquet")
    done = base_install(tmp_path, "set")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the package pyarrow is missing here: pip install" in done.stderr
    assert not (tmp_path / "natix.yaml").exists()


@pytest.mark.slow
def test_ingest_and_split_take_the_config_and_count_what_was_told(tmp_path: Path) -> None:
    root, path = write_images(tmp_path / "set"), tmp_path / "street.yaml"
    said = init(root, "-o", path).stdout
    settings = step_settings(config.load(path))
    ingested, counts = run_step("ingest", settings["ingest"], tmp_path / "ingest")
    _, sizes = run_step("split", settings["split"], tmp_path / "split", ingested)
    assert (counts["images"], counts["rejected"]) == (72, 0) and "72, listed in manifest.csv" in said
    assert "at most 24 groups" in said and sizes["groups"] == 24
    for role in ("train", "val_select", "val_calib", "test"):
        assert f"{role.upper()} {sizes[f'images_{role}']}" in said
    assert yaml.safe_load(path.read_text())["data"]["positive_classes"] == ["Roadwork"]
