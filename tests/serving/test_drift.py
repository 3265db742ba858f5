"""Drift as the service shows it: in its metrics, on the model's page, in the log."""

import json
import logging
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from natix_lib.bundle.runtime import Bundle
from natix_lib.files import read_json
from natix_lib.serving.service import make_app
from tests.damage import changed_bundle, seal
from tests.serving.asking import PREDICT, b64, png
from tests.serving.process import served


@pytest.fixture
def sensitive(soft_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose reference holds 2,000 images with log-odds about -2, which no answer has."""
    reference = {"images": 2_000, "first_level": -16, "counts": [2_000], "classes": [1_000, 1_000], "unit": "image"}
    return changed_bundle(soft_bundle, tmp_path / "sensitive", "drift.json", **reference)


def metrics(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def request(picture: Callable[..., Image.Image], count: int = 60) -> dict[str, list[dict[str, str]]]:
    return {"instances": [{"b64": b64(png(picture(40, 30, seed=seed)))} for seed in range(count)]}


def test_the_log_and_the_page_say_it_once_images_differ_and_metrics_show_why(
    sensitive: Path, picture: Callable[..., Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(make_app(Bundle.load(sensitive), "natix")) as client:
        before = metrics(client.get("/metrics").text)
        assert (before["natix_drift_alarm"], before["natix_drift_images"]) == (0, 0)
        assert "drift" not in client.get("/v1/models/natix").json()
        with caplog.at_level(logging.WARNING, "uvicorn.error"):
            client.post(PREDICT, json=request(picture))
            client.post(PREDICT, json=request(picture))
        after = metrics(client.get("/metrics").text)
        page = client.get("/v1/models/natix").json()
    assert (after["natix_drift_alarm"], after["natix_drift_images"]) == (1, 120)
    assert after["natix_drift_capital"] >= after["natix_drift_capital_of_alarm"] == 100
    said = [record.getMessage() for record in caplog.records if "drift" in record.getMessage()]
    assert said == [page["drift"]] and "what it promises no longer applies" in said[0]
    assert after['natix_drift_pixels{of="recent",quantile="0.5"}'] == 40 * 30
    reference = read_json(sensitive / "drift.json")["looks"]
    assert after['natix_drift_brightness{of="val_calib",quantile="0.05"}'] == reference["brightness"][0]


def test_images_that_were_not_answered_are_not_observed(sensitive: Path, picture: Callable[..., Image.Image]) -> None:
    with TestClient(make_app(Bundle.load(sensitive), "natix")) as client:
        body = request(picture, 6)
        body["instances"].append({"b64": b64(b"no image")})
        assert client.post(PREDICT, json=body).status_code == 400
        assert metrics(client.get("/metrics").text)["natix_drift_images"] == 0


def test_a_bundle_of_before_is_served_without_drift(
    soft_bundle: Path, tmp_path: Path, picture: Callable[..., Image.Image]
) -> None:
    old = changed_bundle(soft_bundle, tmp_path / "old", "drift.json")
    (old / "drift.json").unlink()
    seal(old, read_json(old / "bundle.json"))
    with TestClient(make_app(Bundle.load(old), "natix")) as client:
        assert client.post(PREDICT, json=request(picture, 3)).status_code == 200
        assert "natix_drift" not in client.get("/metrics").text


@pytest.mark.slow
def test_a_process_logs_the_alarm_and_shows_it(
    sensitive: Path, tmp_path: Path, picture: Callable[..., Image.Image]
) -> None:
    with served(sensitive, tmp_path / "log") as process:
        address = f"http://127.0.0.1:{process.port}"
        for _ in range(2):
            body = json.dumps(request(picture)).encode()
            asked = urllib.request.Request(f"{address}{PREDICT}", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                assert len(json.load(answer)["predictions"]) == 60
        with urllib.request.urlopen(f"{address}/metrics", timeout=20) as answer:
            assert metrics(answer.read().decode())["natix_drift_alarm"] == 1
        assert (tmp_path / "log").read_text().count("images showed that they differ") == 1
