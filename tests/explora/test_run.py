import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from natix_lib import repeats
from natix_lib.backbones.loading import load_backbone
from natix_lib.config import Explora
from natix_lib.distributed.processes import GRACE_SECONDS
from natix_lib.distributed.world import World
from natix_lib.errors import ConfigError, ContractError, StorageError, TrainingError
from natix_lib.explora import checkpoint
from natix_lib.explora.learner import Learner
from natix_lib.explora.run import Adapted, adapt_backbone, crop_sizes, require_batch
from natix_lib.explora.schedules import at
from natix_lib.explora.stream import Stream, padded
from natix_lib.files import write_bytes
from natix_lib.storage import checkpoints
from tests.cloud_storage import BUCKET, Cloud
from tests.explora.small import adapt, feed, small


def same(first: Adapted, second: Adapted) -> bool:
    return first.history == second.history and all(torch.equal(first.state[k], second.state[k]) for k in first.state)


@pytest.fixture(scope="module")
def whole(tiny_backbone: Path) -> Adapted:
    """A run that nothing interrupts."""
    return adapt(tiny_backbone, small())


def test_only_intended_parameters_change_and_all_of_them_do(tiny_backbone: Path, whole: Adapted) -> None:
    before = load_backbone(tiny_backbone).state_dict()
    changed = {name for name in before if not torch.equal(before[name], whole.state[name])}
    intended = {name.split(".lora_")[0] + ".weight" if ".lora_" in name else name for name in whole.trained}
    assert list(before) == list(whole.state) and changed == intended
    assert whole.counts[0] < whole.counts[1] and len(whole.history) == 4


def test_a_learning_rate_of_zero_changes_nothing(tiny_backbone: Path) -> None:
    before = load_backbone(tiny_backbone).state_dict()
    after = adapt(tiny_backbone, small(lr=0.0)).state
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_and_another_does_not(tiny_backbone: Path, whole: Adapted) -> None:
    assert same(adapt(tiny_backbone, small(), workers=1), whole)
    assert not same(adapt(tiny_backbone, small(seed=1)), whole)


@pytest.mark.slow
def test_prototypes_stand_still_at_first(tiny_backbone: Path) -> None:
    seen: list[torch.Tensor] = []
    adapt(tiny_backbone, small(), on_step=lambda learner: seen.append(learner.student.head.prototypes.detach().clone()))
    assert not torch.equal(seen[0], seen[1])
    fresh: list[torch.Tensor] = []
    adapt(
        tiny_backbone,
        small(freeze_prototypes=0.5),
        on_step=lambda learner: fresh.append(learner.student.head.prototypes.detach().clone()),
    )
    assert torch.equal(fresh[0], fresh[1]) and torch.equal(fresh[0], seen[0]) and not torch.equal(fresh[1], fresh[2])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("root", ["local", "gs://"])
def test_interrupted_and_continued_equals_uninterrupted(
    tiny_backbone: Path, tmp_path: Path, whole: Adapted, cloud: Cloud, root: str
) -> None:
    settings = small(checkpoint_root=str(tmp_path) if root == "local" else f"gs://{BUCKET}/checkpoints")
    seen: list[int] = []

    def stop(learner: Learner) -> None:
        seen.append(learner.step_number)
        if seen == [1, 2, 3]:
            raise Stopped  # step 3 is done and its checkpoint is not written

    with pytest.raises(Stopped):
        adapt(tiny_backbone, settings, identity={"data": "x"}, on_step=stop)
    assert same(adapt(tiny_backbone, settings, identity={"data": "x"}, on_step=stop), whole)
    assert seen == [1, 2, 3, 3, 4]
    assert same(adapt(tiny_backbone, settings, identity={"data": "x"}, on_step=stop), whole) and len(seen) == 5


def test_a_process_that_is_told_to_stop_saves_first(tiny_backbone: Path, tmp_path: Path, whole: Adapted) -> None:
    settings = small(checkpoint_root=str(tmp_path), checkpoint_every=100)

    def terminate(learner: Learner) -> None:
        if learner.step_number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(BaseException, match=r".*") as stopped:
        adapt(tiny_backbone, settings, identity={}, on_step=terminate)
    assert isinstance(stopped.value, SystemExit | KeyboardInterrupt)
    steps: list[int] = []
    assert same(adapt(tiny_backbone, settings, identity={}, on_step=lambda x: steps.append(x.step_number)), whole)
    assert steps == [3, 4]


def test_a_run_that_outlives_its_bucket_gives_the_same_and_its_checkpoints_come_when_it_is_back(
    tiny_backbone: Path, whole: Adapted, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Away for many times as long as one request is repeated for, which stand for ten minutes and more."""
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.05)
    settings = small(checkpoint_root=f"gs://{BUCKET}/checkpoints")
    steps: list[int] = []

    def go_away(learner: Learner) -> None:
        steps.append(learner.step_number)
        if learner.step_number == 1:
            cloud.failing, cloud.failures = (lambda path: "upload" in path), 10**9
        elif learner.step_number < 4:
            time.sleep(0.2)
        else:
            assert not list(cloud.bucket.list_blobs())
            cloud.failures = 0

    assert same(adapt(tiny_backbone, settings, identity={}, on_step=go_away), whole)
    kept = [blob.name.rsplit("/", 1)[1] for blob in cloud.bucket.list_blobs()]
    assert kept[-1] == "step-00000004.safetensors" and "step-00000001.safetensors" not in kept
    shown = capsys.readouterr()
    assert "no checkpoint yet in" in shown.out and "; trying again" in shown.err
    assert re.search(
        r"warning: gs://\S+: the service answers 503; the work goes on, and it or a newer one is written",
        shown.out,
    )
    cloud.failing, cloud.failures = None, 2
    assert same(adapt(tiny_backbone, settings, identity={}, on_step=go_away), whole) and steps == [1, 2, 3, 4]
    assert re.search(r"going on from step 4 of 4, gs://\S+/step-00000004.safetensors", capsys.readouterr().out)


def test_a_bucket_that_never_comes_back_costs_the_checkpoints_and_not_the_result(
    tiny_backbone: Path, whole: Adapted, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.05)
    monkeypatch.setattr(checkpoints, "SETTLE_SECONDS", 0.2)
    cloud.failing, cloud.failures = (lambda path: "upload" in path), 10**9
    settings = small(checkpoint_root=f"gs://{BUCKET}/checkpoints")
    assert same(adapt(tiny_backbone, settings, identity={}), whole) and not list(cloud.bucket.list_blobs())
    assert re.search(r"warning: gs://\S+/step-0000000\d.safetensors could not be written", capsys.readouterr().out)


def test_a_place_of_checkpoints_that_refuses_ends_the_run_before_more_is_lost(
    tiny_backbone: Path, cloud: Cloud
) -> None:
    cloud.failing, cloud.failures, cloud.status = (lambda path: "upload" in path), 10**9, 403
    settings = small(checkpoint_root=f"gs://{BUCKET}/checkpoints", steps=40)
    steps: list[int] = []

    def slowly(learner: Learner) -> None:
        steps.append(learner.step_number)
        time.sleep(0.1)

    with pytest.raises(StorageError, match=f"gs://{BUCKET}/checkpoints.*: 403"):
        adapt(tiny_backbone, settings, identity={}, on_step=slowly)
    assert len(steps) < 40


STOPPED = """
import sys
from pathlib import Path
from tests.explora.small import adapt, small

settings = small(steps=4000, checkpoint_every=1000, checkpoint_root=sys.argv[2])
adapt(Path(sys.argv[1]), settings, identity={}, on_step=lambda learner: print("step", flush=True))
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("away", [True, False])
def test_who_is_told_to_stop_ends_within_the_grace_with_a_checkpoint_or_a_line(
    tiny_backbone: Path, cloud: Cloud, away: bool
) -> None:
    command = [sys.executable, "-c", STOPPED, str(tiny_backbone), f"gs://{BUCKET}/checkpoints"]
    environment = {**os.environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout and "no checkpoint yet in" in process.stdout.readline()
        for _ in range(3):
            assert process.stdout.readline() == "step\n"
        cloud.failing, cloud.failures = (lambda path: "upload" in path), 10**9 if away else 0
        process.terminate()
        began = time.monotonic()
        said = process.stdout.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - began < GRACE_SECONDS
    assert len(list(cloud.bucket.list_blobs())) == (not away) and ("could not be written in 15 s" in said) == away


@pytest.mark.slow
def test_other_settings_or_data_never_find_the_checkpoints(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = small(checkpoint_root=str(tmp_path))
    adapt(tiny_backbone, settings, identity={"data": "x"})
    steps: list[int] = []
    adapt(tiny_backbone, settings, identity={"data": "y"}, on_step=lambda learner: steps.append(learner.step_number))
    assert steps == [1, 2, 3, 4] and len(list(tmp_path.iterdir())) == 2
    assert [len(list(folder.iterdir())) for folder in tmp_path.iterdir()] == [2, 2]  # the newest two


def test_a_checkpoint_holds_what_trains_and_a_broken_one_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = small(checkpoint_root=str(tmp_path))
    trained = adapt(tiny_backbone, settings, identity={}).trained
    newest = max(tmp_path.rglob("*.safetensors"))
    with safe_open(newest, framework="numpy") as file:
        parts = [name.partition(".") for name in file.keys()]  # noqa: SIM118 - no mapping
    assert {part for part, _, _ in parts} == {"student", "teacher", "exp_avg", "exp_avg_sq", "step"}
    for part in ("student", "teacher", "exp_avg", "exp_avg_sq", "step"):
        names = {name for held, _, name in parts if held == part and not name.startswith("head.")}
        assert names == {f"backbone.{name}" for name in trained}, part
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(ContractError, match=r"checkpoint .*step-00000004.safetensors cannot be read"):
        adapt(tiny_backbone, settings, identity={})


def test_what_a_process_left_that_ended_while_it_wrote_a_checkpoint_is_dropped(tmp_path: Path) -> None:
    kept = checkpoints.Checkpoints(str(tmp_path), {})
    folder = Path(kept.folder)
    for step in (3, 5):
        write_bytes(folder / f"step-{step:08d}.safetensors", b"")
    code = (
        "import os, sys; from natix_lib.files import replacing\n"
        "opened = [replacing(place) for place in sys.argv[1:]]\n"
        "for each in opened: each.__enter__().touch()\n"
        "os._exit(0)"
    )
    places = [str(folder / f"step-{step:08d}.safetensors") for step in (4, 5, 6)]
    subprocess.run([sys.executable, "-c", code, *places], check=True)
    assert len(list(folder.iterdir())) == 5
    kept._drop_old()
    left = sorted(path.name for path in folder.iterdir())
    assert left[0].startswith(".step-00000006") and left[1:] == [
        "step-00000003.safetensors",
        "step-00000005.safetensors",
    ]


def test_a_checkpoint_of_another_format_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = small(checkpoint_root=str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "1")
        adapt(tiny_backbone, settings, identity={})
    with pytest.raises(ContractError, match=r"checkpoint .*step-00000004.safetensors must be of format 2, got 1: name"):
        adapt(tiny_backbone, settings, identity={})


def test_a_loss_that_is_not_finite_stops_and_names_the_step_and_the_checkpoint(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    settings = small(lr=1e30, checkpoint_root=str(tmp_path))
    with pytest.raises(
        TrainingError, match=r"is (nan|inf) at step 1: lower explora.lr; the last checkpoint is .*step-00000001"
    ):
        adapt(tiny_backbone, settings, identity={})
    with pytest.raises(TrainingError, match="the last checkpoint is none"):
        adapt(tiny_backbone, small(lr=1e30))


def test_schedules_count_optimiser_steps(tiny_backbone: Path) -> None:
    one, two = (adapt(tiny_backbone, small(device_batch_size=size)).history for size in (16, 8))
    for key in ("step", "lr", "momentum", "temperature"):
        assert [row[key] for row in one] == [row[key] for row in two]


def test_schedules_start_and_end_where_the_paper_says() -> None:
    settings = Explora()
    assert at(624, settings).lr == pytest.approx(1e-3) and at(0, settings).lr == pytest.approx(1e-3 / 625)
    assert at(6249, settings).lr == pytest.approx(1e-6, rel=0.01)
    assert at(0, settings).momentum == pytest.approx(0.994) and at(6249, settings).momentum == pytest.approx(
        1, abs=1e-6
    )
    assert at(0, settings).teacher_temperature == 0.04 and at(3000, settings).teacher_temperature == 0.07
    frozen = next(step for step in range(6250) if at(step, settings).prototypes_train)
    assert frozen == 94 and frozen * 1024 / 32 == pytest.approx(3000, abs=16)  # the paper's micro-batches of 32
    assert at(0, Explora(steps=20, warmup=0.0)).prototypes_train
    assert at(624, Explora(batch_size=256)).lr == pytest.approx(0.5e-3)


def test_gradient_checkpointing_gives_the_same_losses(tiny_backbone: Path, whole: Adapted) -> None:
    saved = adapt(tiny_backbone, small(gradient_checkpointing=True))
    for key in ("loss", "dino", "ibot", "koleo"):
        np.testing.assert_allclose([r[key] for r in saved.history], [r[key] for r in whole.history], rtol=1e-4)


def test_processes_divide_the_stream_and_it_can_start_anywhere() -> None:
    one = list(Stream(10, 4, 0, 0, 6))
    first, second = (list(Stream(10, 2, 0, 0, 6, World(rank, 2))) for rank in (0, 1))
    assert [a + b for a, b in zip(first, second, strict=True)] == one
    assert list(Stream(10, 4, 0, 4, 6)) == one[4:] and len(Stream(10, 4, 0, 4, 6)) == 2
    flat = [i for batch in one for i in batch]
    assert sorted(flat[:10]) == sorted(flat[10:20]) == list(range(10)) and flat[:10] != flat[10:20]


def test_images_of_several_sizes_share_a_batch() -> None:
    small_one, large = torch.ones(3, 2, 5, dtype=torch.uint8), torch.ones(3, 4, 3, dtype=torch.uint8)
    batch, sizes = padded([small_one, large])
    assert batch.shape == (2, 3, 4, 5) and sizes.tolist() == [[2, 5], [4, 3]] and int(batch.sum()) == 30 + 36


def test_crops_fit_the_patch(tiny_backbone: Path) -> None:
    config: Any = load_backbone(tiny_backbone).config
    assert (crop_sizes(config, 32).locally, crop_sizes(config, 32).prefix) == (16, 5)
    for patch, local in ((16, 96), (14, 98)):
        config.patch_size = patch
        assert crop_sizes(config, 224).locally == local
    with pytest.raises(ConfigError, match="image_size must be a multiple of the backbone's patch 14, got 225"):
        crop_sizes(config, 225)


def test_a_batch_that_the_prototypes_or_processes_do_not_allow_is_refused(tiny_backbone: Path) -> None:
    with pytest.raises(
        ConfigError, match="explora.prototypes 65536 need at least 32 images at once, .* 2 processes is 16"
    ):
        require_batch(Explora(device_batch_size=8), 2)
    with pytest.raises(ConfigError, match="need at least 2 images at once"):
        adapt(tiny_backbone, small(batch_size=1, device_batch_size=1))
    with pytest.raises(ConfigError, match="multiple of explora.device_batch_size x 3 processes, got 1024 and 32"):
        require_batch(Explora(), 3)
    require_batch(Explora(), 1)


def test_dinov2_is_adapted_by_the_same_run() -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, patch_size=8, image_size=32
    )
    model = Dinov2Model(config).eval()
    keys = list(model.state_dict())
    adapted = adapt_backbone(model, feed(), small(steps=2))
    assert list(adapted.state) == keys and np.isfinite([row["loss"] for row in adapted.history]).all()
