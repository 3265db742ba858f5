import pytest
import torch

from natix_lib.training.order import balanced, shuffled

LABELS = torch.tensor([0] * 70 + [2] * 8 + [5] * 22)  # of classes 1, 3 and 4 there is nothing


def test_a_shuffled_epoch_has_every_row_once() -> None:
    order = shuffled(LABELS, 1, 2)
    assert sorted(order.tolist()) == list(range(100)) and order.tolist() != list(range(100))


def test_a_balanced_epoch_has_equally_many_rows_of_each_class() -> None:
    places = torch.zeros(6, dtype=torch.long)
    for epoch in range(3):
        order = balanced(LABELS, 4, epoch)
        counts = torch.bincount(LABELS[order], minlength=6)
        assert len(order) == 100 and sorted(counts[counts > 0].tolist()) == [33, 33, 34]
        places += counts
    assert places.tolist() == [100, 0, 100, 0, 0, 100]


def test_the_rows_of_a_class_are_drawn_evenly() -> None:
    drawn = torch.bincount(balanced(LABELS, 4, 0), minlength=100)
    assert set(drawn[70:78].tolist()) <= {4, 5} and set(drawn[:70].tolist()) == {0, 1}
    seen = {row for epoch in range(12) for row in balanced(LABELS, 4, epoch).tolist()}
    assert len(seen) == 100


@pytest.mark.parametrize("order", [shuffled, balanced])
def test_an_order_depends_on_the_seed_and_the_epoch_alone(order) -> None:
    torch.manual_seed(0)
    first = order(LABELS, 1, 2)
    torch.rand(3)
    assert torch.equal(order(LABELS, 1, 2), first)
    assert not torch.equal(order(LABELS, 1, 3), first) and not torch.equal(order(LABELS, 2, 2), first)


def test_a_balanced_epoch_is_mixed() -> None:
    labels = LABELS[balanced(LABELS, 0, 0)]
    assert all(set(part.tolist()) == {0, 2, 5} for part in labels.split(25))
