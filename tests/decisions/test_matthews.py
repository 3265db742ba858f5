import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, matthews_corrcoef

from natix_lib.decisions.matthews import binary_matthews, matthews


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_correlation_is_sklearns(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, 300)
    answers = np.where(generator.random(300) < 0.6, labels, generator.integers(0, classes, 300))
    table = confusion_matrix(labels, answers)
    value = matthews(np.diag(table), table.sum(axis=1), table.sum(axis=0), 300)
    assert value == pytest.approx(matthews_corrcoef(labels, answers))
    if classes == 2:
        assert binary_matthews(table[1, 1], labels.sum(), answers.sum(), 300) == pytest.approx(float(value))


def test_a_constant_answer_has_no_correlation_and_many_rows_no_overflow() -> None:
    assert binary_matthews([3, 0], [3, 3], [9, 0], 9).tolist() == [0, 0]
    assert binary_matthews(2e7, 2e7, 2e7, 4e7) == pytest.approx(1)
