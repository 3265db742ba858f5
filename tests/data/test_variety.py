import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from natix_lib.contracts import ROLES
from natix_lib.data.partition import Groups, assign
from natix_lib.data.variety import common_values
from natix_lib.files import read_json
from tests.street_sets import ingest_settings, run_step

RATIOS = np.array([0.6, 0.1, 0.15, 0.15])
SELECT = ROLES.index("VAL_SELECT")


def cities(large: list[int], singles: int = 400) -> tuple[Groups, np.ndarray]:
    """Drives of one city, all of class 0, beside single images of another city, half of each class."""
    counts = np.zeros((len(large) + singles, 2), dtype=np.int64)
    counts[: len(large), 0] = large
    counts[len(large) + np.arange(singles), np.arange(singles) % 2] = 1
    values = np.zeros_like(counts)
    values[: len(large), 0] = large
    values[len(large) :, 1] = 1
    none = np.full(len(counts), -1)
    names = [f"group {number:05d}" for number in range(len(counts))]
    return Groups(names, counts, np.zeros_like(counts), none, none.copy()), values


def divided(groups: Groups, seed: int = 0, values: np.ndarray | None = None, ratios: np.ndarray = RATIOS) -> np.ndarray:
    return assign(
        Groups(groups.names, groups.counts, groups.synthetic, groups.given, groups.kept, values),
        ratios,
        1,
        seed,
        ["a", "b"],
    )


def cost(counts: np.ndarray, roles: np.ndarray) -> float:
    held = np.stack([counts[roles == role].sum(axis=0) for role in range(4)])
    return float(np.abs(held / counts.sum(axis=0) - RATIOS[:, None]).sum())


def values_of(values: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """Whether each role holds each value, (4, V)."""
    return np.stack([values[roles == role].any(axis=0) for role in range(4)])


@pytest.mark.parametrize(
    ("large", "before", "after"),
    [
        ([400, 30, 30], [1, 0, 1, 1], [1, 1, 0, 1]),  # two for three roles: VAL_SELECT comes first
        ([300, 62], [1, 0, 1, 0], [1, 1, 0, 0]),
        ([500, 20, 20, 20, 20], [1, 1, 1, 0], [1, 1, 1, 1]),
        ([330, 70], [1, 0, 1, 0], [1, 0, 1, 0]),  # 70 are 13 % of their class: too many for VAL_SELECT
        ([406, 62], [1, 1, 0, 0], [1, 1, 0, 0]),
    ],
)
def test_roles_hold_every_city_where_its_drives_allow_it_and_shares_stay_as_near(
    large: list[int], before: list[int], after: list[int]
) -> None:
    groups, values = cities(large)
    as_before, roles = divided(groups), divided(groups, values=values)
    assert values_of(values, as_before).tolist() == [[bool(one), True] for one in before]
    assert values_of(values, roles).tolist() == [[bool(one), True] for one in after]
    assert cost(groups.counts, roles) <= max(cost(groups.counts, as_before), 0.004 * 8) + 1e-8
    if before == after:
        assert np.array_equal(roles, as_before)


@pytest.mark.parametrize("large", [[60], [60, 10], [100]])
def test_train_loses_no_city_to_val_select(large: list[int]) -> None:
    groups, values = cities(large, 940)
    ratios = np.array([0.7, 0.1, 0.1, 0.1])
    before, roles = (values_of(values, divided(groups, 0, given, ratios)) for given in (None, values))
    assert before[0].all() and roles[0].all()


def test_neither_the_order_of_groups_nor_of_values_matters() -> None:
    groups, values = cities([400, 30, 30])
    turned = Groups(
        groups.names[::-1],
        groups.counts[::-1],
        groups.synthetic[::-1],
        groups.given[::-1],
        groups.kept[::-1],
    )
    assert np.array_equal(divided(turned, values=values[::-1])[::-1], divided(groups, values=values))


def test_what_an_earlier_division_gave_counts_and_stays() -> None:
    groups, values = cities([400, 30, 30])
    groups.kept[1] = SELECT
    roles = divided(groups, values=values)
    assert roles[1] == SELECT and values_of(values, roles)[:, 0].tolist() == [True, True, True, False]


def test_common_values_are_of_short_tags_and_of_enough_images_that_count() -> None:
    tags: dict[str, Sequence[str | None]] = {
        "zone": ["b", "a", "a", "b", None, "a"],
        "drive": [*"uvwxyz"],
        "camera": ["front"] * 6,
        "city": ["x"] * 5 + ["y"],
    }
    counted = np.array([True] * 5 + [False])
    found = common_values(tags, counted, np.array([0, 0, 1, 1, 2, 2]))
    # a drive of each image, one camera, and a city that no image that counts has: only `zone` is left, `drive` is short
    assert found[:, 5:].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert common_values({"zone": tags["zone"]}, counted, np.zeros(6, dtype=np.int64)).tolist() == [[2, 2]]
    rare: Sequence[str | None] = ["a"] * 96 + ["b"] * 4
    assert common_values({"zone": rare}, np.ones(100, dtype=bool), np.arange(100) // 50).tolist() == [[50], [46]]
    many: Sequence[str | None] = [str(number) for number in range(9)]
    assert common_values({"drive": many}, np.ones(9, dtype=bool), np.zeros(9, dtype=np.int64)).shape == (1, 0)
    assert common_values({}, counted, np.array([0, 0, 1, 1, 2, 2])).shape == (3, 0)


@pytest.mark.slow  # reads 867 photographs
def test_val_select_of_road_photographs_has_both_sources_and_so_has_every_role_that_can(tmp_path: Path) -> None:
    """camvid has three drives, so one role has none of it, and that is not VAL_SELECT."""
    folder = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data"), "roadwork-real")
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    paths, _ = run_step("ingest", ingest_settings(folder), tmp_path)
    for seed in range(3):
        paths |= run_step("split", {"split": {"seed": seed}}, tmp_path, paths)[0]
        splits = read_json(paths["splits"])
        held = {role: {name.split("/")[-1].split("_")[0] for name in names} for role, names in splits["roles"].items()}
        camvid = {splits["groups"][name] for name in splits["groups"] if "camvid" in name}
        assert len(camvid) == 3 and sum("camvid" in sources for sources in held.values()) == 3
        assert held["TRAIN"] == held["VAL_SELECT"] == {"camvid", "tracon"}
