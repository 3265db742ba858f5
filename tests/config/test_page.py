import subprocess
import sys
from pathlib import Path

from natix_lib.config.explain import entries
from natix_lib.config.page import page

PAGE = Path(__file__).parent.parent.parent / "docs" / "config.md"


def test_the_page_of_the_docs_is_what_the_keys_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_key_is_a_row_of_six_cells() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [entry.path for entry in entries() if "." in entry.path]
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}


def test_the_page_is_written_by_the_module(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "natix_lib.config.page", str(tmp_path / "config.md")], check=True)
    assert (tmp_path / "config.md").read_text(encoding="utf-8") == page()
