"""`make submit` looks at the cluster before it sends anything."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.errors import ConfigError
from natix_pipelines import submit
from tests.loopback import Handler, serving
from tests.short_stack import on_a_short_stack
from tests.survey.clusters import NODES, api_server, made, node

CONFIG = Path(__file__).parent.parent.parent / "pipelines" / "configs" / "default.yaml"
SUBMIT = [
    "submit", "--target", "kubeflow", "--image-cpu", "a", "--image-gpu", "a", "--experiment", "e", "--run", "r",
    "--config", str(CONFIG),
]  # fmt: skip


@pytest.fixture
def kfp() -> Iterator[str]:
    class Kfp(Handler):
        def do_GET(self) -> None:
            self.answer_json({"tag_name": "2.17.0"})

    with serving(Kfp) as url:
        yield url


def test_what_falls_short_stops_it_and_the_rest_is_said(
    kfp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("KFP_NAMESPACE", "street")
    settings = config.load(CONFIG, ["hardware.num_gpus=0"])
    with api_server(made({NODES: {"items": [node("small", cpu="3920m")]}}), tmp_path):
        with pytest.raises(
            ConfigError, match=r"^the cluster falls short: node for steps without GPUs asks 4 CPUs, the"
        ):
            submit.look_first(settings, kfp)
        assert capsys.readouterr() == ("", "")
        submit.look_first(config.load(CONFIG, ["hardware.num_gpus=0", "hardware.cpu='3'"]), kfp)
    said = capsys.readouterr()
    assert said.out == "" and all(line.startswith(("partly", "not seen")) for line in said.err.splitlines())


def test_without_a_kubeconfig_it_says_what_was_not_looked_at_and_goes_on(
    kfp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    submit.look_first(config.load(CONFIG, []), kfp)
    assert "which is no file" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_is_sent_unless_the_look_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))

    def send(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        sent.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("natix_pipelines.submit.subprocess.run", send)
    for flags, code in (([], 2), (["--no-doctor"], 0)):
        monkeypatch.setattr(sys, "argv", [*SUBMIT, "--endpoint", "http://127.0.0.1:9", *flags])
        with pytest.raises(SystemExit) as ended:
            on_a_short_stack(submit.main)
        assert ended.value.code == code and len(sent) == (1 if flags else 0)
    assert "error: the cluster falls short: KFP nothing answers at its address" in capsys.readouterr().err
