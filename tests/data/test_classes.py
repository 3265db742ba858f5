from typing import Any

import pytest

from natix_lib.config import DataSource
from natix_lib.data.classes import resolve_classes
from natix_lib.errors import ConfigError, DataError


def resolve(labels: list, declared: tuple = (), num_classes: int | None = None, **settings: Any) -> tuple:
    ids = [f"{i}.jpg" for i in range(len(labels))]
    return resolve_classes(ids, labels, declared, DataSource(data_root="x", **settings), num_classes)


def test_names_come_from_the_labels_in_order_and_the_last_of_two_is_positive() -> None:
    assert resolve(["Roadwork", "None", "Roadwork"]) == (["None", "Roadwork"], [1, 0, 1], ["Roadwork"])


def test_whole_numbers_are_ordered_as_numbers() -> None:
    names, indices, positive = resolve(["10", "9", "2"])
    assert (names, indices, positive) == (["2", "9", "10"], [2, 1, 0], [])


def test_names_of_the_config_win_over_the_declared_ones() -> None:
    assert resolve([0, 1], declared=("a", "b"), class_names=["x", "y"])[0] == ["x", "y"]
    assert resolve([0, 1], declared=("a", "b"))[0] == ["a", "b"]
    assert resolve(["y", "x"], class_names=["x", "y"], positive_classes=["x"])[1:] == ([1, 0], ["x"])


def test_a_number_is_one_class_as_text_and_as_a_float_in_text() -> None:
    assert resolve([0, "1", "0", 1])[:2] == (["0", "1"], [0, 1, 0, 1])
    assert resolve(["0.0", "1.0", "1"], class_names=["None", "Roadwork"])[1] == [0, 1, 1]
    assert resolve(["10.0", "9.0"])[0] == ["9.0", "10.0"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Roadwork", "roadwork"),
        ("Road work", "Road_work"),
        ("Road  work", "Road work"),
        ("Br\u00fccke", "Bru\u0308cke"),
    ],
)
def test_a_class_spelt_in_two_ways_is_refused_unless_both_are_named(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"labels .* \(. images\) and .* \(.\) differ in case, spaces, hyphens or Uni"):
        resolve([one, "None", one, other])
    assert resolve([one, other], class_names=[one, other])[1] == [0, 1]


@pytest.mark.parametrize(
    ("labels", "settings", "error", "message"),
    [
        (
            ["a", None, None],
            {},
            DataError,
            "missing in 2 of 3 rows, the first is 1.jpg; data.unlabelled: drop leaves",
        ),
        (["a", "a"], {}, DataError, "at least two classes, all 2 images are a"),
        ([0, 2], {"class_names": ["a", "b"]}, DataError, "label 2 of 1.jpg is none of the classes a, b"),
        (["a", "c"], {"class_names": ["a", "b"]}, DataError, "label 'c' of 1.jpg is none of the classes a, b"),
        (["a", "b"], {"num_classes": 13}, ConfigError, "^model.num_classes is 13 but the data has 2: a, b$"),
        (["a", "b"], {"positive_classes": ["z"]}, ConfigError, r"^data.positive_classes \['z'\] are none of"),
    ],
)
def test_labels_that_fit_no_class_are_named(labels: list, settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(labels, **settings)


def test_a_minus_before_a_digit_makes_another_number_and_other_hyphens_another_spelling() -> None:
    assert resolve(["1", "-1", "1"]) == (["-1", "1"], [1, 0, 1], ["1"])
    with pytest.raises(DataError, match="differ in case, spaces, hyphens"):
        resolve(["-work", "work"])
    with pytest.raises(DataError, match="label '-1' of 1.jpg is none of the classes a, b"):
        resolve(["1", "-1"], class_names=["a", "b"])


def test_truth_values_beside_numbers_are_refused_unless_all_are_named() -> None:
    with pytest.raises(DataError, match="labels True and 0 stand in one column, truth values beside numbers"):
        resolve(["True", 1, 0])
    assert resolve(["True", "1"], class_names=["1", "True"])[1] == [1, 0]


def test_names_of_the_config_that_are_whole_floats_are_the_whole_numbers() -> None:
    assert resolve(["1", "0"], class_names=["1.0", "0.0"])[1] == [0, 1]
    assert resolve(["1.0", "0.0"], class_names=["1", "0"])[1] == [0, 1]


def test_another_spelling_is_the_class_that_the_config_says() -> None:
    labels = ["None", "Road work", "roadwork", "Road work"]
    with pytest.raises(DataError, match=r"data.class_aliases: \{'roadwork': 'Road work'\} to make them one class"):
        resolve(labels)
    names, indices, _ = resolve(labels, class_aliases={"roadwork": "Road work"})
    assert names == ["None", "Road work"] and indices == [0, 1, 1, 1]
    with pytest.raises(DataError, match="none of the classes None, Road work; data.class_aliases can say which"):
        resolve(labels, class_names=["None", "Road work"])
