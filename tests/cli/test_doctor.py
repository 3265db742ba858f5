"""`natix doctor` and `natix verify`, and commands of a user who has no name and no home."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from natix_lib import cli
from tests.cli.test_cli import ROOT, write_config


def doctor(*arguments: object) -> dict[str, str]:
    result = CliRunner().invoke(cli.app, ["doctor", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in result.output.splitlines()}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A port of this machine that takes connections and answers nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    yield server
    server.close()


@pytest.mark.slow
def test_what_cannot_be_reached_is_a_line_and_no_secret_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", "http://user:password@127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    values = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me"}}],
        "clusters": [{"name": "one", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
        "users": [{"name": "me", "user": {"token": "secret-token"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(values))
    started = time.monotonic()
    rows = doctor("--endpoint", f"127.0.0.1:{port}", "--bucket", "ftp://a/b", "--cache", tmp_path / "cache")
    assert time.monotonic() - started < 60
    assert rows["hub"].startswith("no: ") and rows["kfp"].startswith("no: ") and rows["bucket"].startswith("no: ")
    assert rows["cluster"] == f"yes, context here answers at 127.0.0.1:{port}"
    assert rows["cache"] == f"{tmp_path / 'cache'}, not there yet" and rows["train"] == "yes"
    assert not any(secret in str(rows) for secret in ("password", "aaaa", "secret-token"))


def test_a_damaged_bundle_is_refused_and_a_whole_one_described(tmp_path: Path, tiny_bundle: Path) -> None:
    result = CliRunner().invoke(cli.app, ["verify", "--bundle", str(tiny_bundle)])
    assert result.exit_code == 0
    rows = {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in result.output.splitlines()}
    assert len(rows["bundle_sha256"]) == 64 and "is allowed" in rows["golden"]
    assert rows["promise"].startswith("uncertified: the accept rule carries no guarantee: needs at least ")
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    (copy / "splits.json").write_bytes((copy / "splits.json").read_bytes() + b" ")
    command = [sys.executable, "-m", "natix_lib.cli", "verify", "--bundle", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "was changed after it was written" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_a_user_without_name_and_home_can_use_every_short_command(tmp_path: Path, tiny_bundle: Path) -> None:
    stranger = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    stranger += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]  # where the tree is root's
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    config = write_config(tmp_path, tmp_path)
    for arguments in (
        ["--version"], ["-h"], ["doctor"], ["config", "-c", config], ["verify", "--bundle", tiny_bundle],
        ["predict", "--bundle", tiny_bundle, tiny_bundle / "golden" / "tiny.png"],
    ):  # fmt: skip
        command = [*stranger, sys.executable, "-m", "natix_lib.cli", *map(str, arguments)]
        done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=600, cwd="/")
        assert done.returncode == 0 and done.stderr.count("\n") == (2 if arguments[0] == "predict" else 0), done.stderr
        assert arguments != ["doctor"] or "this user has no home folder" in done.stdout
