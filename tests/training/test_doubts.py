import numpy as np
import pytest
from sklearn.datasets import load_digits

from natix_lib.training import doubts
from natix_lib.training.doubts import FOLDS, confident, fold_numbers, label_doubts


def digits(groups: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Pixels of zeros and ones, labels of which those of whole groups are wrong, which are, and two images a group."""
    pixels, labels = load_digits(n_class=2, return_X_y=True)
    pixels, labels = pixels[: 2 * groups].astype(np.float32), labels[: 2 * groups].astype(np.int64)
    order = np.argsort(labels, kind="stable")
    number = np.arange(2 * groups) // 2
    wrong = number % 20 == 7
    labels = np.where(wrong, 1 - labels[order], labels[order])
    return pixels[order], labels, wrong, [f"g{each}" for each in number]


def test_labels_that_were_made_wrong_are_found_and_come_first() -> None:
    pixels, labels, wrong, groups = digits()
    found = label_doubts(pixels, labels, groups, 2)
    assert set(found.rows[: wrong.sum()]) == set(np.flatnonzero(wrong))
    assert len(found.rows) < 1.3 * wrong.sum() and found.judged == found.images == len(labels)
    assert all(suggested != labels[row] for row, suggested in zip(found.rows, found.suggested, strict=True))
    margins = [given - other for given, other in found.probabilities]
    assert margins == sorted(margins) and max(margins) < 0 and found.reason == found.sample == ""


def test_images_of_one_group_do_not_vouch_for_each_other() -> None:
    """Pairs of equal images in noise, one pair of them wrong: alone, each is confirmed by its twin."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(30) % 2, 2)
    features = np.repeat(generator.normal(size=(30, 400)), 2, axis=0).astype(np.float32)
    features[:, 0] += 8 * labels
    features[:, 1:20] += labels[:, None]
    labels[:2] = 1
    assert set(label_doubts(features, labels, [f"g{row // 2}" for row in range(60)], 2).rows[:2]) == {0, 1}
    assert not {0, 1} & set(label_doubts(features, labels, [f"g{row}" for row in range(60)], 2).rows)


def test_the_rule_is_that_of_the_paper_read_word_by_word() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet([0.7] * 4, 200)
    labels = generator.integers(0, 3, 200)  # no image of class 3, so nothing is suggested to be of it
    threshold = {c: np.mean([p[c] for p, y in zip(probabilities, labels, strict=True) if y == c]) for c in range(3)}
    expected = []
    for row, (each, label) in enumerate(zip(probabilities.tolist(), labels.tolist(), strict=True)):
        best = max(range(4), key=each.__getitem__)
        if best != label and best in threshold and each[best] >= threshold[best]:
            expected.append(((each[label] - each[best] + 1) / 2, row, best))
    rows, suggested = confident(probabilities, labels)
    assert list(zip(rows.tolist(), suggested.tolist(), strict=True)) == [each[1:] for each in sorted(expected)]


def test_folds_keep_groups_whole_and_share_classes_and_drives_evenly() -> None:
    labels = np.array([0] * 400 + [1] * 100)
    groups = [f"drive {row // 80}" for row in range(400)] + [f"photograph {row}" for row in range(100)]
    folds = fold_numbers(labels, groups, np.random.default_rng(0))
    assert all(len({folds[row] for row in range(500) if groups[row] == group}) == 1 for group in set(groups))
    assert np.bincount(folds[labels == 0]).tolist() == [80] * FOLDS
    assert np.bincount(folds[labels == 1]).tolist() == [20] * FOLDS


def test_a_class_of_one_group_is_not_judged() -> None:
    pixels, labels, _, groups = digits()
    labels = np.where(np.arange(len(labels)) < 10, 2, labels)
    groups = ["one drive"] * 10 + groups[10:]
    found = label_doubts(pixels, labels, groups, 3)
    assert found.judged == found.images - 10 and not set(found.rows) & set(range(10))


def test_what_cannot_be_judged_is_said_and_costs_nothing() -> None:
    pixels, labels, _, _ = digits()
    assert "TRAIN is one group" in label_doubts(pixels, labels, ["a"] * len(labels), 2).reason
    wide = np.zeros((10, 2_000), np.float32)
    many = label_doubts(wide, np.arange(10), list("abcdefghij"), 1_000)
    assert many.reason == "1000 classes with 1024 features are more than fits the time for this"
    apart = label_doubts(pixels, labels, [f"class {label}" for label in labels], 2)
    assert apart.reason == "no class lies in two groups" and apart.judged == 0


def test_models_are_fitted_on_a_sample_where_there_is_much_and_all_images_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels, labels, wrong, groups = digits()
    monkeypatch.setattr(doubts, "MOST_ROWS", 60)
    monkeypatch.setattr(doubts, "MOST_FEATURES", 40)
    found = label_doubts(pixels, labels, groups, 2)
    assert found.sample == "60 images and 40 of 64 features" and found.judged == len(labels)
    assert wrong[found.rows[: wrong.sum()]].mean() > 0.8
