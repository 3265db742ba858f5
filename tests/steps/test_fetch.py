"""fetch from a folder and from a stand-in of the hub that speaks its HTTP protocol on the loopback."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from natix_lib.contracts import read_manifest
from natix_lib.errors import ConfigError, ContractError, StorageError
from natix_lib.steps import fetch
from tests.cloud_storage import BUCKET, Cloud
from tests.loopback import Handler, serving
from tests.small_run import backbone_sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET, OTHER = "hf_secretsecretsecret", "hf_fromsecretmanager"


def settings(source: str | Path) -> dict:
    return {"backbone_id": str(source), "backbone_revision": "main"}


def test_a_local_folder_becomes_a_described_backbone(tiny_backbone: Path, tmp_path: Path) -> None:
    metrics = fetch.run(settings(tiny_backbone), backbone=str(tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out", "backbone")
    assert manifest["model_type"] == "dinov3_vit" and manifest["patch_size"] == 8
    assert manifest["weights_sha256"] == backbone_sha256(tiny_backbone)
    assert manifest["licence"]["files"] == ["LICENSE.md"]
    assert metrics["parameters_millions"] == pytest.approx(manifest["parameters"] / 1e6, abs=1e-3)


def test_a_bucket_gives_the_same_backbone(tiny_backbone: Path, tmp_path: Path, cloud: Cloud) -> None:
    cloud.put({f"backbones/tiny/{path.name}": path.read_bytes() for path in tiny_backbone.iterdir()})
    fetch.run(settings(f"gs://{BUCKET}/backbones/tiny"), backbone=str(tmp_path / "out"))
    assert backbone_sha256(tmp_path / "out") == backbone_sha256(tiny_backbone)


def test_a_pickle_in_the_folder_is_left_behind(tiny_backbone: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    fetch.run(settings(source), backbone=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


def test_the_preprocessor_of_the_source_gives_the_normalisation(tiny_backbone: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    (source / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}')
    fetch.run(settings(source), backbone=str(tmp_path / "out"))
    assert read_manifest(tmp_path / "out", "backbone")["image_mean"] == [0.5, 0.5, 0.5]


def test_a_path_that_is_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder, no gs:// or s3:// address and no hub id"):
        fetch.run(settings(tmp_path / "absent"), backbone=str(tmp_path / "out"))


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    with pytest.raises(ContractError, match="needs config.json and model.safetensors; it has config.json"):
        fetch.run(settings(tmp_path / "source"), backbone=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "backbone.json").exists()


def test_a_file_that_cannot_be_read_is_one_line(tiny_backbone: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    (source / "LICENSE.md").unlink()
    (source / "LICENSE.md").mkdir()  # root may read everything but a folder
    with pytest.raises(StorageError, match="LICENSE.md cannot be copied: Is a directory"):
        fetch.run(settings(source), backbone=str(tmp_path / "out"))


@dataclass
class Hub:
    """A hub with one model, and what it was asked."""

    url: str
    tokens: list[str | None] = field(default_factory=list)
    gated: bool = False
    secrets: dict[str, bytes] = field(default_factory=dict)  # of Secret Manager, at the same address


@pytest.fixture
def hub(tiny_backbone: Path) -> Iterator[Hub]:
    names = [path.name for path in tiny_backbone.iterdir()]

    class Models(Handler):
        def do_GET(self) -> None:
            if self.path.startswith("/v1/projects/"):
                return self.answer_secret(self.path.split("/")[5])
            stand_in.tokens.append(self.headers.get("Authorization"))
            if self.path.startswith("/api/models/owner/vit"):
                entries: list[dict[str, Any]] = [{"rfilename": name} for name in names]
                if "/tree/" in self.path:
                    entries = [
                        {"type": "file", "path": name, "size": (tiny_backbone / name).stat().st_size, "oid": "0" * 40}
                        for name in names
                    ]
                    return self.answer_json(entries)
                body = {"id": "owner/vit", "sha": COMMIT, "siblings": entries, "private": False, "gated": False}
                return self.answer_json(body)
            name = self.path.rsplit("/", 1)[-1]
            if stand_in.gated:
                return self.answer(403, b"gated", {"X-Error-Code": "GatedRepo"})
            if self.path.startswith("/owner/vit/resolve/") and name in names:
                content = (tiny_backbone / name).read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def answer_secret(self, name: str) -> None:
            if name not in stand_in.secrets:
                return self.answer(404, b"{}")
            data = stand_in.secrets[name]
            payload = {"data": base64.b64encode(data).decode(), "dataCrc32c": str(google_crc32c.value(data))}
            return self.answer_json({"payload": payload})

        do_HEAD = do_GET

    with serving(Models) as url:
        stand_in = Hub(url)
        yield stand_in


def fetch_from(
    hub: Hub, name: str, out: Path, token: str = SECRET, secret: str = ""
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its address when it is imported."""
    code = (
        "import os, sys; from natix_lib import repeats; from natix_lib.steps import fetch; repeats.IN_CLUSTER = 1;"
        "before = dict(os.environ);"
        "settings = {'backbone_id': sys.argv[1], 'backbone_revision': 'main'};"
        "fetch.run(settings, backbone=sys.argv[2], token_secret=sys.argv[3]);"
        "assert dict(os.environ) == before"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(out.parent / "home"),
        "SECRET_MANAGER_EMULATOR_HOST": hub.url,
        "CLOUD_ML_PROJECT_ID": "street",
    }
    return subprocess.run(
        [sys.executable, "-c", code, name, str(out), secret],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_a_hub_id_is_downloaded_with_the_token_and_nothing_tells_it(
    hub: Hub, tiny_backbone: Path, tmp_path: Path
) -> None:
    done = fetch_from(hub, "owner/vit", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert backbone_sha256(tmp_path / "out") == backbone_sha256(tiny_backbone)
    assert f"Bearer {SECRET}" in hub.tokens
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert SECRET not in done.stdout + done.stderr and SECRET.encode() not in written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gated", "message"),
    [
        ("owner/vit", True, "is gated: accept its licence on the hub and set HF_TOKEN"),
        ("owner/other", False, "does not exist on the hub, or HF_TOKEN may not see it"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path, name: str, gated: bool, message: str) -> None:
    hub.gated = gated
    done = fetch_from(hub, name, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"natix_lib.errors.StorageError: model.backbone_id {name} {message}"


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "nowhere"])
def test_a_hub_that_cannot_be_read_is_one_line_with_what_works_without_it(tmp_path: Path, endpoint: str) -> None:
    done = fetch_from(Hub(endpoint), "owner/vit", tmp_path / "out")
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("natix_lib.errors.StorageError: model.backbone_id owner/vit: the hub cannot be read: ")
    assert line.endswith(
        "name a folder or gs:// or s3:// folder of a backbone, or make a random one: natix backbone --output FOLDER, "
        "then --set model.backbone_id=FOLDER"
    )
    assert SECRET not in done.stderr


@pytest.mark.slow
def test_the_token_of_a_secret_goes_to_the_hub_and_nowhere_else(hub: Hub, tiny_backbone: Path, tmp_path: Path) -> None:
    hub.secrets["hf-token"] = OTHER.encode()
    done = fetch_from(hub, "owner/vit", tmp_path / "out", secret="hf-token")
    assert done.returncode == 0, done.stderr
    assert backbone_sha256(tmp_path / "out") == backbone_sha256(tiny_backbone)
    assert set(hub.tokens) - {None} == {f"Bearer {OTHER}"}  # the secret wins over HF_TOKEN
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert OTHER not in done.stdout + done.stderr and OTHER.encode() not in written


@pytest.mark.slow
def test_an_open_backbone_needs_no_secret(hub: Hub, tiny_backbone: Path, tmp_path: Path) -> None:
    done = fetch_from(hub, "owner/vit", tmp_path / "out", token="", secret="hf-token")
    assert done.returncode == 0, done.stderr
    assert "secret projects/street/secrets/hf-token/versions/latest does not exist" in done.stdout
    assert backbone_sha256(tmp_path / "out") == backbone_sha256(tiny_backbone) and set(hub.tokens) == {None}


@pytest.mark.slow
def test_a_gated_backbone_names_the_secret_that_holds_the_token(hub: Hub, tmp_path: Path) -> None:
    hub.gated, hub.secrets["hf-token"] = True, OTHER.encode()
    done = fetch_from(hub, "owner/vit", tmp_path / "out", secret="hf-token")
    assert done.stderr.strip().splitlines()[-1] == (
        "natix_lib.errors.StorageError: model.backbone_id owner/vit is gated: "
        "accept its licence on the hub and set secret hf-token"
    )
    assert OTHER not in done.stdout + done.stderr


def test_a_secret_is_not_asked_for_when_the_hub_is_not(tiny_backbone: Path, tmp_path: Path) -> None:
    fetch.run(settings(tiny_backbone), backbone=str(tmp_path / "out"), token_secret="not even a name")
    assert backbone_sha256(tmp_path / "out") == backbone_sha256(tiny_backbone)
