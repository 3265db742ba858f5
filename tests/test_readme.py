"""What the README tells a person to type first works as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from natix_lib import config
from natix_lib.files import read_json
from tests.street_sets import write_images

ROOT = Path(__file__).parent.parent
SECTION = re.search(r"^## Your images$(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)


def blocks(language: str) -> list[str]:
    """The fenced blocks of the section in a language, "" for commands."""
    assert SECTION
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION[1], re.M | re.S)


def test_the_first_config_has_three_keys_and_leaves_the_way_out_to_the_default(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    assert {key: list(section) for key, section in yaml.safe_load(text).items()} == {
        "data": ["data_root"],
        "model": ["backbone_id"],
        "export": ["policy"],
    }
    (tmp_path / "my.yaml").write_text(text)
    for path in (tmp_path / "my.yaml", *(ROOT / "pipelines" / "configs").glob("*.yaml")):
        if path.name != "demo.yaml":  # which has no paths of its own
            assert config.load(path).scrc.on_infeasible == "empirical", path


@pytest.mark.slow
def test_the_first_config_and_its_commands_end_with_a_bundle_and_a_report(tmp_path: Path, tiny_backbone: Path) -> None:
    """Only the place of the images and the backbone are replaced; with 30 drives nothing can be certified."""
    (text,) = blocks("yaml")
    images = write_images(tmp_path / "images", groups=30, frames=2)
    for old, new in (("/path/to/images", images), ("facebook/dinov2-base", tiny_backbone)):
        assert text.count(old) == 1
        text = text.replace(old, str(new))
    (tmp_path / "my.yaml").write_text(text)
    (tmp_path / "street.jpg").write_bytes((images / "01-0.png").read_bytes())
    outputs = []
    for line in blocks("")[0].splitlines():
        program, *arguments = shlex.split(line)
        if program != "natix":
            assert line.startswith("make install")
            continue
        done = subprocess.run(
            [sys.executable, "-m", "natix_lib.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=900,
            cwd=tmp_path,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done)
    checked, run, predict = outputs
    assert "groups  30" in checked.stdout and (tmp_path / "data.html").is_file()
    first = tmp_path / "runs" / "first"
    assert "uncertified" in (first / "report.html").read_text().split("<h2>")[0]
    assert read_json(first / "bundle" / "bundle.json")["policy"]["certified"] is False
    assert read_json(first / "evaluate" / "evaluation.json")["policy"]["promise"].startswith("uncertified: ")
    assert "uncertified" in run.stdout and '"image": "street.jpg"' in predict.stdout
