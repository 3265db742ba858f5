import numpy as np
import pytest

from natix_lib.data.groups import MOST_FITS, Links, joined, joined_by_all, same_source, same_value, tree


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


def test_a_source_that_several_images_fit_joins_all_of_them_and_is_said() -> None:
    links = same_source(["s/a.jpg", "t/a.jpg", "x", "y"], [None, None, "a.jpg", "a.jpg"])
    assert links.smallest.tolist() == [0, 0, 0, 0]
    assert links.warnings == [
        "source_id of 2 images fits several images each, and they are joined with all of these: a.jpg of x fits "
        "s/a.jpg, t/a.jpg; a source_id with the folders of its image fits one."
    ]
    assert same_source(["s/a.jpg", "s/a.png", "x"], [None, None, "s/a"]).smallest.tolist() == [0, 0, 0]


def test_of_images_that_a_source_fits_the_nearest_to_its_copy_is_taken() -> None:
    ids = ["1/left/a.jpg", "1/right/a.jpg", "2/left/a.jpg", "1/left/crops/a_1.jpg", "2/crops/a_1.jpg", "1/a_1.jpg"]
    links = same_source(ids, [None, None, None, "a.jpg", "a.jpg", "a.jpg"])
    assert links.smallest.tolist() == [0, 0, 2, 0, 2, 0]
    [said] = links.warnings
    assert said.startswith("source_id of 1 images") and "a.jpg of 1/a_1.jpg fits 1/left/a.jpg, 1/right/a.jpg;" in said
    links = same_source(["d/a.jpg", "d/e/a.jpg", "d/a_1.jpg"], [None, None, "a.jpg"])  # its own folder, not one below
    assert links.smallest.tolist() == [0, 1, 0] and not links.warnings


@pytest.mark.parametrize("source", ["t/a.jpg", "/data/set/t/a.jpg", "old\\t\\a", "other/t/a.png"])
def test_of_images_that_a_source_fits_those_with_its_last_folders_are_taken(source: str) -> None:
    links = same_source(["set/s/a.jpg", "set/t/a.jpg", "set/s/a_1.jpg"], [None, None, source])
    assert links.smallest.tolist() == [0, 1, 1] and not links.warnings


def test_copies_that_keep_the_name_of_their_original_are_joined_with_it_and_not_taken_for_it() -> None:
    ids = ["1/a.jpg", "2/a.jpg", *(f"{drive}/{turned}/a.jpg" for drive in (1, 2) for turned in range(20))]
    links = same_source(ids, [None, None, *["a.jpg"] * 40])
    assert links.smallest.tolist() == [0, 1, *[0] * 20, *[1] * 20] and not links.warnings
    assert same_source(["s/a.jpg", "t/a.jpg", "x"], ["a.jpg"] * 3).smallest.tolist() == [0, 0, 0]  # an original outside


def test_a_source_that_very_many_images_fit_joins_none_of_them_still_its_copies_and_is_said() -> None:
    ids = [*(f"{drive}/0001.jpg" for drive in range(MOST_FITS + 1)), "x", "y"]
    links = same_source(ids, [*[None] * (MOST_FITS + 1), "0001.jpg", "0001.jpg"])
    assert links.smallest.tolist() == [*range(MOST_FITS + 2), MOST_FITS + 1]
    assert links.warnings == [
        "source_id of 2 images fits more than 8 images each, and they are joined with none of these, so copies of one "
        "original can lie in two splits: 0001.jpg of x fits 0/0001.jpg, 1/0001.jpg, 2/0001.jpg and 6 more; a source_id "
        "with the folders of its image fits one."
    ]


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
