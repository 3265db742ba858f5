"""What all tests share: where the real images are, small pictures, a browser, and a small backbone."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from natix_lib import repeats
from tests.cloud_storage import Cloud, cloud_storage
from tests.simple_storage import Simple, simple_storage
from tests.small_run import Chain, make_chain
from tests.tiny_backbone import tiny_backbone as tiny_backbone

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)
LONGEST = (  # minutes each: a process that begins one last is waited for by the others
    "test_ten_classes_of_hugging_face_parquet_run_through_the_same_command",
    "test_twenty_kills_at_random_moments_leave_no_process_and_the_same_command_ends_with_the_same_bundle",
    "test_real_road_photographs_beat_the_majority_class",
    "test_nodes_end_without_a_launcher_and_in_seconds_when_it_is_told_to_stop",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first; fast ones of what takes seconds to make run in one process, so it is made once."""
    items.sort(key=lambda item: getattr(item, "originalname", item.name) not in LONGEST)
    for item in items:
        costly = [name for name in ("chain", "made") if name in getattr(item, "fixturenames", ())]
        if costly and not any(map(item.get_closest_marker, ("xdist_group", "slow"))):
            item.add_marker(pytest.mark.xdist_group(costly[0]))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is repeated waits for hundredths of seconds, and gives up after a few."""
    for name, seconds in {"FIRST": 0.01, "LONGEST": 0.05, "ELSEWHERE": 5.0}.items():
        monkeypatch.setattr(repeats, name, seconds)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs."""
    folder = Path(os.environ.get("NATIX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "roadwork-real" / "manifest.csv").is_file():
        pytest.skip(f"no real images at {folder}: set NATIX_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of small inputs that once broke natix; what they show is also shown by inputs that the tests make."""
    folder = Path(os.environ.get("NATIX_TEST_CASES", ROOT.parent / "shared" / "cases"))
    if not (folder / "images").is_dir():
        pytest.skip(f"no cases at {folder}: set NATIX_TEST_CASES")
    return folder


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Draws a noisy picture of a size, always the same for a seed."""

    def draw(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return draw


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no browser: install Debian's chromium and chromium-driver, or Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver)) as started:
        yield started


@pytest.fixture(scope="session")
def running_cloud() -> Iterator[Cloud]:
    """Cloud Storage on the loopback."""
    with cloud_storage() as cloud:
        yield cloud


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a bucket is kept by this test alone."""
    monkeypatch.setenv("NATIX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def cloud(running_cloud: Cloud, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Empty Cloud Storage on the loopback, as google-cloud-storage finds it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running_cloud.url)
    running_cloud.wipe()
    return running_cloud


@pytest.fixture(scope="session")
def running_simple() -> Iterator[Simple]:
    """S3 on the loopback."""
    with simple_storage() as simple:
        yield simple


@pytest.fixture
def simple(running_simple: Simple, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> Simple:
    """Empty S3 on the loopback, as boto3 finds it."""
    settings = {"ENDPOINT_URL": running_simple.url, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    running_simple.wipe()
    return running_simple


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Chain:
    """The artifacts of a small run; tests must not change them."""
    return make_chain(tmp_path_factory.mktemp("chain"), tiny_backbone)


@pytest.fixture(scope="session")
def tiny_bundle(chain: Chain) -> Path:
    """The bundle of a small run."""
    return Path(chain.paths["bundle"])
