"""What describes a backbone's source, without the hub; see tests/steps/test_fetch.py for the hub itself."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo

from natix_lib import repeats
from natix_lib.backbones.sources import commit_of, copy_backbone, normalisation
from natix_lib.errors import ConfigError, ContractError, StorageError
from tests.loopback import Handler, serving


def copied(source: object, folder: Path) -> None:
    copy_backbone(str(source), "main", folder / "out", folder / "scratch")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"image_mean": "x"}, "image_mean must be three numbers, got 'x'"),
        ({"image_mean": None}, "image_mean must be three numbers, got None"),
        ({"image_std": [1, 1]}, "image_std must be three numbers, got \\[1, 1\\]"),
        ({"image_std": [True, 1, 1]}, "image_std must be three numbers"),
        ({"image_std": [10**400, 1, 1]}, "is not JSON: the number .* is too large"),
        ({"image_std": [0, 1, 1]}, "image_std must be above 0, got \\[0, 1, 1\\]"),
        ([], "must hold a JSON object, got list"),
    ],
)
def test_a_normalisation_that_is_none_is_one_line(tmp_path: Path, document: object, message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    with pytest.raises(ContractError, match=message):
        normalisation(tmp_path)


@pytest.mark.parametrize("source", ["owner/a b", "a..b/c", "owner/name.git"])
def test_what_cannot_be_a_hub_id_is_not_asked_for(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="is no folder here and cannot be a hub id"):
        copied(source, tmp_path)


@pytest.mark.parametrize("token", ["hf_tök", "two words", "hf_\udcff"])
def test_a_token_that_is_none_is_one_line_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match=r"^HF_TOKEN must hold a token, one word of ASCII, and holds something else$"):
        copied("owner/vit", tmp_path)


@pytest.mark.parametrize("make", ["dangling", "loop", "pipe"])
def test_what_stands_for_a_file_and_is_none_is_one_line(tmp_path: Path, tiny_backbone: Path, make: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_backbone.iterdir():
        (source / path.name).symlink_to(path)  # links to files are followed
    copied(source, tmp_path)
    if make == "pipe":
        os.mkfifo(source / "NOTICE")
    else:
        (source / "NOTICE").symlink_to("absent" if make == "dangling" else "NOTICE")
    with pytest.raises(StorageError, match="NOTICE cannot be copied: "):
        copied(source, tmp_path)


class Client:
    """The hub's client, whose question or download fails as a test asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failures: Exception, answers: str = "0" * 40) -> None:
        self.failures, self.asked = list(failures), 0
        self.revisions: list[str] = []
        monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", self.repo_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        self.answers = answers

    def repo_info(self, repository: str, revision: str, timeout: float) -> ModelInfo:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return ModelInfo(id=repository, sha=self.answers)

    def snapshot_download(self, repository: str, revision: str, local_dir: Path, **_: object) -> str:
        self.revisions.append(revision)
        if self.failures:
            raise self.failures.pop(0)
        local_dir.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (local_dir / name).write_text("{}")
        return str(local_dir)


def answered(status: int) -> HfHubHTTPError:
    return HfHubHTTPError(
        "the hub says", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))
    )


def wrapped(error: Exception) -> Exception:
    """As the client gives it on, when it has looked into its cache."""
    missing = LocalEntryNotFoundError("An error happened while trying to locate the files on the Hub")
    missing.__cause__ = error
    return missing


def test_a_hub_that_is_away_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = (httpx2.ConnectError("Name or service not known"), answered(429), answered(503))
    client = Client(monkeypatch, *away, wrapped(httpx2.ReadTimeout("late")), wrapped(answered(500)))
    copied("owner/vit", tmp_path)
    assert client.asked == 6 and set(client.revisions) == {"0" * 40} and (tmp_path / "out" / "config.json").is_file()
    said = capsys.readouterr().err.splitlines()
    line = "model.backbone_id owner/vit: the hub cannot be read: Name or service not known; trying again"
    assert said[0] == line and len(said) == 5


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (answered(400), 1),
        (httpx2.UnsupportedProtocol("no scheme"), 1),
        (OfflineModeIsEnabled("HF_HUB_OFFLINE is set"), 1),
        (httpx2.ConnectError("Name or service not known"), 3),
    ],
)
def test_what_the_hub_will_not_give_says_what_works_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, asked: int
) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    client = Client(monkeypatch, *[error] * 1000)
    with pytest.raises(
        StorageError, match="owner/vit: the hub cannot be read: .*; without the hub, name a folder"
    ) as line:
        copied("owner/vit", tmp_path)
    assert str(error) in str(line.value) and str(line.value).count("cannot be read") == 1
    assert client.asked == 1 if asked == 1 else client.asked >= asked


FIRST, SECOND = "0123456789abcdef0123456789abcdef01234567", "f" * 40


@dataclass
class Hub:
    """A hub with the model owner/vit, the commit of its branch main, and the tokens that it was asked with."""

    commit: str | None = FIRST
    tokens: list[str | None] = field(default_factory=list)
    private: bool = False


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    class Models(Handler):
        def do_GET(self) -> None:
            stand_in.tokens.append(self.headers.get("Authorization"))
            if stand_in.private and not self.headers.get("Authorization"):
                return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
            if self.path.endswith("/revision/main"):
                return self.answer_json({"id": "owner/vit", "sha": stand_in.commit, "siblings": []})
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})

    stand_in = Hub()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(Models) as url:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        yield stand_in


def test_a_branch_of_the_hub_is_the_commit_that_it_stands_for_now(hub: Hub) -> None:
    assert commit_of("owner/vit", "main") == FIRST
    hub.commit = SECOND
    assert commit_of("owner/vit", "main") == SECOND
    with pytest.raises(
        StorageError, match="^model.backbone_revision of is no branch, tag or commit of owner/vit on the"
    ):
        commit_of("owner/vit", "of")


def test_a_mirror_that_tells_no_commit_is_refused(hub: Hub) -> None:
    hub.commit = None
    with pytest.raises(StorageError, match="read: it tells no commit of the revision main, but None; a commit as"):
        commit_of("owner/vit", "main")


def test_a_private_model_is_seen_with_the_token_and_no_message_holds_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private = True
    with pytest.raises(
        StorageError, match="^model.backbone_id owner/vit does not exist on the hub, or HF_TOKEN may not"
    ):
        commit_of("owner/vit", "main")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert commit_of("owner/vit", "main") == FIRST
    assert set(hub.tokens) == {None, "Bearer hf_secret"} and hub.tokens[-1] == "Bearer hf_secret"
    assert "hf_secret" not in "".join(capsys.readouterr())


def test_a_commit_is_itself_without_the_hub_and_a_branch_without_it_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert commit_of("owner/vit", SECOND) == SECOND
    with pytest.raises(ConfigError, match="^model.backbone_id /nowhere/vit is no folder, no gs://"):
        commit_of("/nowhere/vit", SECOND)
    with pytest.raises(StorageError) as refused:
        commit_of("owner/vit", "main")
    assert re.fullmatch(
        r"model.backbone_id owner/vit: the hub cannot be read: .+; a commit as model.backbone_revision needs no asking "
        r"and takes what was fetched before; without the hub, name a folder or gs:// or s3:// folder of a backbone",
        str(refused.value),
    )
