import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from natix_lib.decisions import Policy
from natix_lib.decisions.cut import judge_cut, matthews, tune_cut
from natix_lib.decisions.score import group_log_odds
from natix_lib.errors import CalibrationError


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_has_a_better_mcc(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(150) < 0.3
    scores = (generator.normal(0, 1, 150) + truth).round(1)
    tuned = tune_cut(scores, truth)
    assert tuned.mcc == pytest.approx(matthews_corrcoef(truth, scores > tuned.logodds))
    assert tuned.mcc >= max(matthews_corrcoef(truth, scores > t) for t in scores) - 1e-12


def test_a_cut_lies_between_rows() -> None:
    assert tune_cut(np.array([-3.0, 1.0, 2.0]), np.array([False, False, True])).logodds == 1.5


@pytest.mark.parametrize("low", [0.3, -2e4, 3e4])
def test_the_emitted_score_rounds_to_the_cut_even_between_the_nearest_rows(low: float) -> None:
    high = max(low + 2e-12, np.nextafter(low, np.inf))
    logits = np.array([[0.0, low], [0.0, high]])
    tuned = tune_cut(group_log_odds(logits, np.array([False, True])), np.array([False, True]))
    score = Policy(("a", "b"), ("b",), cut=tuned.logodds).apply(logits).score
    assert (score > 0.5).tolist() == [False, True] and tuned.mcc == 1.0


def test_rows_that_the_score_cannot_tell_apart_are_one() -> None:
    scores = np.array([0.3, np.nextafter(0.3, 1), 0.9, 0.2])
    tuned = tune_cut(scores, np.array([False, True, True, False]))
    assert 0.2 < tuned.logodds < 0.3 or 0.3 < tuned.logodds < 0.9


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


def drawn(n: int, seed: int, prior: float = 0.5, off: float = 0.0, strength: float = 1.5) -> tuple:
    """Scores whose best cut lies at `off`: log-odds of two normals, with equal weights for both kinds."""
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < prior
    return strength * (generator.normal(0, 1, n) + strength * (truth - 0.5)) + off, truth


def kept(trials: int, n: int, **options: float) -> float:
    return float(np.mean([judge_cut(*drawn(n, seed, **options)).kept for seed in range(trials)]))


@pytest.mark.parametrize("n", [30, 300])
def test_a_cut_that_is_worth_nothing_is_kept_in_few_trials(n: int) -> None:
    """At 0.5 already stands the best cut there is, and the best of each sample looks better."""
    assert kept(150, n) <= 0.05
    assert np.mean([tune_cut(*drawn(n, s)).mcc > matthews(drawn(n, s)[0] > 0, drawn(n, s)[1]) for s in range(20)]) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("prior", [0.03, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [30, 60, 150, 600])
def test_a_cut_that_is_worth_nothing_is_kept_in_5_of_100_trials_at_most(n: int, prior: float) -> None:
    best = tune_cut(*drawn(400_000, 0, prior)).logodds
    assert kept(1000, n, prior=prior, off=-best) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_a_cut_that_mends_a_wrong_place_is_kept() -> None:
    assert kept(40, 300, off=2.5) > 0.9 and kept(40, 300, off=-2.5) > 0.9


def test_frames_of_one_group_are_one_witness() -> None:
    scores, truth = drawn(12, 3, off=2.5)
    copies = scores.repeat(40), truth.repeat(40)
    assert judge_cut(*copies).kept
    trial = judge_cut(*copies, groups=np.arange(480) // 40)
    assert not trial.kept and (trial.n, trial.unit) == (12, "group")


def test_the_share_of_losses_is_that_of_mcnemar_where_the_kinds_are_balanced() -> None:
    """Scores 1 to 8 above 0 of which the halves change alike: losses against gains, each as likely as the other."""
    trial = judge_cut(*drawn(400, 1, off=3.0))
    assert trial.changed > 50 and trial.worse < trial.changed / 3 and trial.p_value < 1e-3


def test_where_a_half_holds_one_kind_nothing_is_kept() -> None:
    trial = judge_cut([0.1, 0.2, 0.3, 0.4], [False] * 4)
    assert (trial.kept, trial.changed, trial.p_value) == (False, 0, 1.0)


def test_13_classes_on_few_images_give_no_cut_and_the_one_that_looks_best_is_worse_than_none() -> None:
    """12 positive classes and one that is not: of 40 images three are negative, and the best cut fits these three."""
    harm = keeps = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        positive = np.arange(13) > 0

        def images(n: int, generator: np.random.Generator = generator) -> tuple:
            labels = generator.integers(0, 13, n)
            logits = generator.normal(0, 1, (n, 13))
            logits[np.arange(n), labels] += 4
            return logits, labels

        logits, labels = images(40)
        scores, truth = group_log_odds(logits, positive), labels > 0
        if truth.all():
            continue
        new_logits, new_labels = images(4000)
        cut, new = tune_cut(scores, truth).logodds, group_log_odds(new_logits, positive)
        harm += np.mean((new > cut) == (new_labels > 0)) < np.mean((new_logits.argmax(1) > 0) == (new_labels > 0))
        keeps += judge_cut(scores, truth).kept
    assert harm >= 15 and keeps == 0
