import pytest
import torch

from natix_lib.training.loss import BatchLoss, likeliest

WEIGHTS = torch.tensor([0.5, 1.0, 4.0])


def by_hand(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    shares = torch.eye(3)[targets] if targets.ndim == 1 else targets
    weights = torch.ones(3) if weights is None else weights
    smoothed = (1 - smoothing) * shares + smoothing / 3
    return -(smoothed * weights * logits.log_softmax(1)).sum() / (shares * weights).sum()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("at_once", [0, 1, 3, 11])
@pytest.mark.parametrize("blended", [False, True], ids=["numbers", "probabilities"])
def test_the_parts_of_a_batch_sum_to_its_loss_and_gradient(
    weights: torch.Tensor | None, smoothing: float, at_once: int, blended: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator)
    targets = torch.tensor([0, 0, 2, 1, 0, 0, 0])
    if blended:
        targets = torch.eye(3)[targets] * 0.7 + torch.eye(3)[targets.flip(0)] * 0.3
    values = logits.clone().requires_grad_()
    loss = BatchLoss(weights, smoothing, at_once)
    weight, count = loss.whole(targets)
    parts = [loss.of_part(part, of_part, weight) for part, of_part in loss.parts(values, targets)]
    assert count == 7 and len(parts) == (-(-7 // at_once) if at_once else 1)
    other = logits.clone().requires_grad_()
    expected = by_hand(other, targets, weights, smoothing)
    whole = torch.stack(parts).sum()
    torch.testing.assert_close(whole, expected)
    whole.backward()
    expected.backward()
    torch.testing.assert_close(values.grad, other.grad)


@pytest.mark.parametrize("targets", [torch.zeros(0, dtype=torch.long), torch.zeros(0, 3)])
def test_a_share_of_no_images_is_one_part_that_adds_nothing(targets: torch.Tensor) -> None:
    loss = BatchLoss(WEIGHTS, 0.1, 4)
    ((inputs, of_part),) = loss.parts(torch.zeros(0, 3, requires_grad=True), targets)
    value = loss.of_part(inputs, of_part, torch.tensor(5.0))
    value.backward()
    assert value.item() == 0


def test_the_likeliest_class_is_the_number_or_the_largest_share() -> None:
    assert likeliest(torch.tensor([2, 0])).tolist() == [2, 0]
    assert likeliest(torch.tensor([[0.3, 0.0, 0.7], [0.6, 0.4, 0.0]])).tolist() == [2, 0]
