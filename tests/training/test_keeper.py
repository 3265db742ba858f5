import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from natix_lib.config import EarlyStopping, Optimizer, Training
from natix_lib.storage.checkpoints import Checkpoints
from natix_lib.training import keeper as keeper_module
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Epoch, Objective, fit
from natix_lib.training.keeper import Keeper
from natix_lib.training.watch import Figures, figures
from tests.training.test_fit import blobs

EPOCHS, STEPS = 6, 5
RUN = {"data": "blobs"}
SETTINGS = Training(epochs=EPOCHS, optimizer=Optimizer(lr=0.05), early_stopping=EarlyStopping(patience=EPOCHS))


@pytest.fixture(autouse=True)
def each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "LEAST_SECONDS", 0.0)


def train(
    root: Path | None,
    on_batch: Callable[[int, int], object] = lambda epoch, batch: None,
    on_score: Callable[[], object] = lambda: None,
    ema_decay: float | None = 0.9,
    run: dict[str, str] = RUN,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a head with dropout, whose loader and score draw random numbers as torch's do."""
    torch.manual_seed(3)
    head = Head(4, 2, "mlp", 0.3)
    (features, labels), (val_features, val_labels) = blobs(), blobs(seed=1)

    def batches(epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        torch.rand(())
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for batch, rows in enumerate(order.split(40)):
            if batch >= start:
                on_batch(epoch, batch)
                yield features[rows], labels[rows]

    def score() -> Figures:
        torch.rand(())
        on_score()
        with torch.no_grad():
            logits = head.eval()(val_features)
        head.train()
        return figures(logits, val_labels)

    keeper = Keeper(Checkpoints(str(root), run)) if root else Keeper()
    history = fit(head, Objective(batches, STEPS, None, score, keeper=keeper), SETTINGS, ema_decay)
    return head.state_dict(), history


def same(first: tuple[dict[str, Tensor], list[Epoch]], second: tuple[dict[str, Tensor], list[Epoch]]) -> bool:
    return first[1] == second[1] and all(torch.equal(value, second[0][name]) for name, value in first[0].items())


def tell(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("ema_decay", [0.9, None])
def test_told_at_every_batch_and_in_every_score_it_gives_what_it_would_have_given(
    tmp_path: Path, ema_decay: float | None
) -> None:
    before, whole = signal.getsignal(signal.SIGTERM), train(None, ema_decay=ema_decay)
    assert same(train(tmp_path / "never told", ema_decay=ema_decay), whole)
    begun: list[tuple[int, int]] = []
    scores: list[int] = []

    def at_batch(epoch: int, batch: int) -> None:
        begun.append((epoch, batch))
        tell()

    def at_score() -> None:
        scores.append(len(begun))
        if scores.count(len(begun)) == 1:
            tell()
            raise AssertionError("a score went on")

    for _ in range(EPOCHS * (STEPS + 1)):
        with pytest.raises(SystemExit) as ended:
            train(tmp_path / "told", at_batch, at_score, ema_decay)
        assert ended.value.code == 128 + signal.SIGTERM
    assert same(train(tmp_path / "told", at_batch, at_score, ema_decay), whole)
    assert begun == [(epoch, batch) for epoch in range(EPOCHS) for batch in range(STEPS)]  # each once: none is redone
    assert signal.getsignal(signal.SIGTERM) == before


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", [1, STEPS, 2 * STEPS + 3, EPOCHS * STEPS])
def test_what_ends_without_a_word_goes_on_from_the_last_epoch(tmp_path: Path, moment: int) -> None:
    seen: list[tuple[int, int]] = []

    def at_batch(epoch: int, batch: int) -> None:
        seen.append((epoch, batch))
        if len(seen) == moment:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", Checkpoints.save_now)  # none waits: else which one is written is chance
        with pytest.raises(Killed):
            train(tmp_path, at_batch)
    assert same(train(tmp_path, at_batch), train(None))
    assert seen[moment] == (seen[moment - 1][0], 0)


def test_time_within_an_epoch_is_kept_too(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def at_batch(epoch: int, batch: int) -> None:
        seen.append((epoch, batch))
        if len(seen) == 4:
            raise Killed

    torch.manual_seed(3)
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now.__setitem__(0, now[0] + 1000) or now[0])
        patch.setattr(Checkpoints, "save", Checkpoints.save_now)  # none waits: else which one is written is chance
        with pytest.raises(Killed):
            train(tmp_path, at_batch)
    assert same(train(tmp_path, at_batch), train(None)) and seen[3:5] == [(0, 3), (0, 3)]


def test_a_run_that_is_done_gives_its_result_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, seen = train(tmp_path), []
    assert same(train(tmp_path, lambda *place: seen.append(place)), whole) and not seen
    first, again = capsys.readouterr().out.splitlines()
    assert first.startswith("no checkpoint yet in ") and f"going on from epoch {EPOCHS}, batch 0, " in again


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = train(tmp_path)
    mine, other = (Path(Checkpoints(str(tmp_path), run).folder) for run in (RUN, {"data": "other"}))
    seen: list[tuple[int, int]] = []
    assert same(train(tmp_path, lambda *place: seen.append(place), run={"data": "other"}), whole)
    assert len(seen) == EPOCHS * STEPS
    for path in mine.iterdir():
        path.unlink()
    for path in other.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    capsys.readouterr()
    assert same(train(tmp_path, lambda *place: seen.append(place)), whole) and len(seen) == 2 * EPOCHS * STEPS
    assert capsys.readouterr().out.count(" is of another run: removed") == 2 == len(list(mine.iterdir()))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(tmp_path, lambda epoch, batch: tell() if (epoch, batch) == (4, 1) else None)
    older, newest = sorted(tmp_path.rglob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x7f")
    (newest.parent / f".{newest.name}.1234.part").write_bytes(b"half of it")
    seen: list[tuple[int, int]] = []
    assert same(train(tmp_path, lambda *place: seen.append(place)), train(None))
    shown = capsys.readouterr().out
    assert f"warning: checkpoint {newest} was changed after it was written: removed" in shown
    assert str(older) in shown and seen[0][0] <= 4 and seen[0][1] == 0
    assert not list(tmp_path.rglob("*.part"))
