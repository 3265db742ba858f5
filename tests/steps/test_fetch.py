"""fetch from a folder and from a stand-in of the hub that speaks its HTTP protocol on the loopback."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from natix_lib.backbones.loading import weights_sha256
from natix_lib.contracts import read_manifest
from natix_lib.errors import ConfigError, ContractError
from natix_lib.steps import fetch
from tests.cloud_storage import BUCKET, Cloud
from tests.loopback import Handler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = "hf_secretsecretsecret"


def settings(source: str | Path) -> dict:
    return {"backbone_id": str(source), "backbone_revision": "main"}


def test_a_local_folder_becomes_a_described_backbone(tiny_backbone: Path, tmp_path: Path) -> None:
    metrics = fetch.run(settings(tiny_backbone), str(tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out", "backbone")
    assert manifest["model_type"] == "dinov3_vit" and manifest["patch_size"] == 8
    assert manifest["weights_sha256"] == weights_sha256(tiny_backbone)
    assert manifest["licence"]["files"] == ["LICENSE.md"]
    assert metrics["parameters_millions"] == pytest.approx(manifest["parameters"] / 1e6, abs=1e-3)


def test_a_bucket_gives_the_same_backbone(tiny_backbone: Path, tmp_path: Path, cloud: Cloud) -> None:
    from natix_lib import storage

    for path in tiny_backbone.iterdir():
        storage._client().bucket(BUCKET).blob(f"backbones/tiny/{path.name}").upload_from_filename(path)
    fetch.run(settings(f"gs://{BUCKET}/backbones/tiny"), str(tmp_path / "out"))
    assert weights_sha256(tmp_path / "out") == weights_sha256(tiny_backbone)


def test_a_pickle_in_the_folder_is_left_behind(tiny_backbone: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    fetch.run(settings(source), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


def test_the_preprocessor_of_the_source_gives_the_normalisation(tiny_backbone: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    (source / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}')
    fetch.run(settings(source), str(tmp_path / "out"))
    assert read_manifest(tmp_path / "out", "backbone")["image_mean"] == [0.5, 0.5, 0.5]


def test_a_path_that_is_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder, no gs:// address and no hub id"):
        fetch.run(settings(tmp_path / "absent"), str(tmp_path / "out"))


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    with pytest.raises(ContractError, match="needs config.json and model.safetensors; it has config.json"):
        fetch.run(settings(tmp_path / "source"), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "backbone.json").exists()


@dataclass
class Hub:
    """A hub with one model, and what it was asked."""

    url: str
    tokens: list[str | None] = field(default_factory=list)
    gated: bool = False


@pytest.fixture
def hub(tiny_backbone: Path) -> Iterator[Hub]:
    names = [path.name for path in tiny_backbone.iterdir()]

    class Models(Handler):
        def do_GET(self) -> None:
            found.tokens.append(self.headers.get("Authorization"))
            if self.path.startswith("/api/models/owner/vit"):
                entries = [{"rfilename": name} for name in names]
                if "/tree/" in self.path:
                    entries = [
                        {"type": "file", "path": name, "size": (tiny_backbone / name).stat().st_size, "oid": "0" * 40}
                        for name in names
                    ]
                    return self.answer_json(entries)
                body = {"id": "owner/vit", "sha": COMMIT, "siblings": entries, "private": False, "gated": False}
                return self.answer_json(body)
            name = self.path.rsplit("/", 1)[-1]
            if found.gated:
                return self.answer(403, b"gated", {"X-Error-Code": "GatedRepo"})
            if self.path.startswith("/owner/vit/resolve/") and name in names:
                content = (tiny_backbone / name).read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

    with serving(Models) as url:
        found = Hub(url)
        yield found


def fetch_from(hub: Hub, name: str, out: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its address when it is imported."""
    code = (
        "import sys; from natix_lib.steps import fetch;"
        "fetch.run({'backbone_id': sys.argv[1], 'backbone_revision': 'main'}, sys.argv[2])"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": SECRET, "HF_HOME": str(out.parent / "home")}
    return subprocess.run(
        [sys.executable, "-c", code, name, str(out)], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_hub_id_is_downloaded_with_the_token_and_nothing_tells_it(
    hub: Hub, tiny_backbone: Path, tmp_path: Path
) -> None:
    done = fetch_from(hub, "owner/vit", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert weights_sha256(tmp_path / "out") == weights_sha256(tiny_backbone)
    assert f"Bearer {SECRET}" in hub.tokens
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert SECRET not in done.stdout + done.stderr and SECRET.encode() not in written


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
