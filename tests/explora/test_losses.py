import math

import numpy as np
import pytest
import torch

from natix_lib.explora.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn_knopp


def test_sinkhorn_rows_sum_to_one_and_columns_are_equal() -> None:
    logits = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    q = sinkhorn_knopp(logits, 0.5, iterations=100)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(48))
    torch.testing.assert_close(q.sum(dim=0), torch.full((6,), 48 / 6), rtol=1e-4, atol=1e-4)


def test_sinkhorn_is_the_textbook_matrix_scaling() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    p = np.exp(logits.numpy().astype(np.float64) / 0.1).T
    for _ in range(3):
        p = p / p.sum(axis=1, keepdims=True) / 3
        p = p / p.sum(axis=0, keepdims=True) / 5
    np.testing.assert_allclose(sinkhorn_knopp(logits, 0.1).numpy(), (p * 5).T, rtol=1e-4, atol=1e-7)


def test_sinkhorn_bears_cosines_at_a_small_temperature_and_no_rows() -> None:
    q = sinkhorn_knopp(torch.tensor([[1.0, -1.0], [1.0, -1.0]]) * 50, 0.04)
    assert torch.isfinite(q).all()
    assert sinkhorn_knopp(torch.empty(0, 4), 0.04).shape == (0, 4)


def test_dino_by_hand() -> None:
    student = torch.zeros(3, 1, 2)
    student[1, 0] = torch.tensor([math.log(3.0), 0.0])  # softmax .75 .25 at temperature 1
    target = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    # pairs: teacher 0 with students 1 and 2, teacher 1 with students 0 and 2
    expected = -(math.log(0.75) + math.log(0.5) + math.log(0.5) + math.log(0.5)) / 4
    assert float(dino_loss(student, target, 2, 1.0)) == pytest.approx(expected)


def test_ibot_by_hand() -> None:
    student = torch.zeros(3, 2)
    student[2] = torch.tensor([math.log(3.0), 0.0])
    target = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    image = torch.tensor([0, 0, 3])
    expected = ((math.log(2) + math.log(2)) / 2 + math.log(4)) / 4
    assert float(ibot_loss(student, target, image, 4, 1.0)) == pytest.approx(expected)


def test_ibot_without_a_masked_patch_is_nothing() -> None:
    assert float(ibot_loss(torch.empty(0, 2), torch.empty(0, 2), torch.empty(0, dtype=torch.long), 4, 1.0)) == 0.0


def test_koleo_of_known_points() -> None:
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert float(koleo_loss(5 * square)) == pytest.approx(-math.log(math.sqrt(2)), abs=1e-6)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(koleo_loss(opposite)) == pytest.approx(-math.log(2), abs=1e-6)
    assert float(koleo_loss(square[:1])) == 0.0


def test_koleo_pushes_neighbours_apart() -> None:
    points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]], requires_grad=True)
    before = float(koleo_loss(points.detach()))
    koleo_loss(points).backward()
    assert points.grad is not None
    assert float(koleo_loss(points.detach() - 0.05 * points.grad)) < before
