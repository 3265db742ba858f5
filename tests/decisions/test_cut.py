import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from natix_lib.decisions.cut import tune_cut
from natix_lib.errors import CalibrationError


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_has_a_better_mcc(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(150) < 0.3
    scores = (generator.normal(0, 1, 150) + truth).round(1)
    cut = tune_cut(scores, truth)
    assert cut.mcc == pytest.approx(matthews_corrcoef(truth, scores > cut.logodds))
    assert cut.mcc >= max(matthews_corrcoef(truth, scores > t) for t in scores) - 1e-12


def test_a_cut_lies_between_rows() -> None:
    assert tune_cut(np.array([-3.0, 1.0, 2.0]), np.array([False, False, True])).logodds == 1.5


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.0, 1.0], [True, True], "positive and negative labels, 2 of 2 are positive"),
        ([1.0, 1.0], [True, False], "scores that differ"),
    ],
)
def test_what_allows_no_cut_is_an_error(scores: list, truth: list, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        tune_cut(np.array(scores), np.array(truth))
