import numpy as np
import pytest

from natix_lib.data.groups import Links, joined, joined_by_all, same_source, same_value, tree


def test_a_component_is_named_by_its_smallest_row() -> None:
    assert joined(6, np.array([5, 2, 4]), np.array([2, 1, 3])).tolist() == [0, 1, 1, 3, 3, 1]


def test_components_run_through_all_rules() -> None:
    rules = [np.array([0, 0, 2, 3, 4]), np.array([0, 1, 1, 3, 4]), np.array([0, 1, 2, 3, 3])]
    assert joined_by_all(rules).tolist() == [0, 0, 0, 3, 3]


def test_equal_values_are_joined_and_unknown_ones_are_not() -> None:
    assert same_value(["a", None, "b", "a", None, "a"]).tolist() == [0, 1, 2, 0, 4, 0]


def test_values_of_mixed_types_and_columns_without_a_value_are_no_trouble() -> None:
    assert same_value([1, "1", 1.0, None]).tolist() == [0, 1, 0, 3]
    assert same_value([None, None]).tolist() == [0, 1] and same_value([]).tolist() == []


def test_children_of_one_source_are_joined_with_the_image_that_is_the_source() -> None:
    ids = ["child", "set/a.jpg", "lone", "copy", "grandchild"]
    sources = ["./set/a.jpg", None, "elsewhere", "set//a.jpg", "child"]
    assert same_source(ids, sources).smallest.tolist() == [0, 0, 2, 0, 0]


@pytest.mark.parametrize(
    "source", ["set/a.jpg", "./set/a.jpg", "set\\a.jpg", "set/a", "a.jpg", "a", "other/a.jpg", "/data/set/a.png"]
)
def test_a_source_names_its_image_in_many_ways(source: str) -> None:
    links = same_source(["set/a.jpg", "set/b.jpg", "x"], [None, source, None])
    assert links.smallest.tolist() == [0, 0, 2] and links.why(1) == f"source {source}"


def test_a_name_that_two_images_have_is_nobodys_source_and_still_joins_its_children() -> None:
    assert same_source(["s/a.jpg", "t/a.jpg", "x", "y"], [None, None, "a.jpg", "a.jpg"]).smallest.tolist() == [
        0,
        1,
        2,
        2,
    ]
    assert same_source(["s/a.jpg", "t/a.jpg", "x"], [None, None, "t/a.jpg"]).smallest.tolist() == [0, 1, 1]


def test_an_image_that_is_its_own_source_or_part_of_a_circle_is_joined_once() -> None:
    assert same_source(["a", "b", "c"], ["a", "c", "b"]).smallest.tolist() == [0, 1, 1]


def test_links_of_a_tree_are_given_links_and_keep_the_components_whole() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 60, 40), random.integers(0, 60, 40)
    links = Links(tree(60, a, b), str)
    given = {frozenset(pair) for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert links.smallest.tolist() == joined(60, a, b).tolist()
    assert len(links.rows) == 60 - len(set(links.smallest.tolist()))
    assert {frozenset((row, int(links.to[row]))) for row in links.rows.tolist()} <= given
