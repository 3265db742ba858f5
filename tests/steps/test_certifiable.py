"""What a division can certify is said of the groups that calibrate will count."""

import re
from pathlib import Path

import pytest

from natix_lib import config
from natix_lib.config.step_settings import step_settings
from natix_lib.errors import CalibrationError
from natix_lib.files import read_json
from natix_lib.steps.certifiable import say_what_can_be_certified
from tests.calibration_sets import run_on_set, write_set
from tests.street_sets import ingested, run_step

MINIMAL = {"data": {"data_root": "images"}, "model": {"backbone_id": "owner/vit"}, "export": {"policy": "calibrate"}}


def configured(policy: str = "calibrate", **scrc: object) -> config.Config:
    return config.parse(config.Config, {**MINIMAL, "scrc": scrc, "export": {"policy": policy}})


def division(groups: int, frames: int = 3) -> dict:
    """The part of a splits.json that counts: groups of several frames in VAL_CALIB, and others elsewhere."""
    name = {f"{group}-{frame}": f"{group}-0" for group in range(groups + 5) for frame in range(frames)}
    calib = [one for one in name if int(one.split("-")[0]) < groups]
    return {
        "class_names": ["None", "Roadwork"],
        "groups": name,
        "roles": {"VAL_CALIB": calib, "TRAIN": [one for one in name if one not in calib]},
    }


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({}, "the accept rule will carry no guarantee"),
        ({"on_infeasible": "abstain"}, "the policy will accept nothing"),
    ],
)
def test_too_few_groups_are_a_warning_with_its_arithmetic(settings: dict, end: str) -> None:
    assert say_what_can_be_certified(division(34), configured(**settings)) == [
        "warning: 34 groups in VAL_CALIB; scrc.alpha 0.05 at scrc.delta 0.1 needs 46 without an error (smallest alpha "
        f"they could certify: 0.0669): {end}"
    ]


def test_enough_groups_are_said_without_a_warning_and_a_sweep_certifies_nothing() -> None:
    lines = say_what_can_be_certified(division(100), configured())
    assert len(lines) == 1 and lines[0].startswith("100 groups in VAL_CALIB") and lines[0].endswith("certify: 0.0233)")
    assert say_what_can_be_certified(division(34), configured("sweep")) == []


def test_sets_take_half_of_the_groups() -> None:
    assert (
        "needs 91 without an error, half of them" in say_what_can_be_certified(division(100), configured(sets="pac"))[0]
    )


def test_slices_share_delta_and_a_tag_stands_for_one_at_least() -> None:
    """At alpha .05 and a third of .1: .95^67 is under .0333."""
    for slices in (["weather", "time"], ["weather=rain", "weather"], ["weather=rain", "weather=sun"]):
        asked = [each for each in slices if f"{each}=rain" not in slices]
        needed = {2: 59, 3: 67}[1 + len(asked)]
        assert 0.95**needed <= 0.1 / (1 + len(asked)) < 0.95 ** (needed - 1)
        line = say_what_can_be_certified(division(100), configured(slices=slices, per_slice=0.2))[0]
        assert f"needs {needed} without an error" in line
    assert "needs 46" in say_what_can_be_certified(division(100), configured(slices=["weather"]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"sets": "pac"}])
def test_the_smallest_alpha_that_is_said_is_one_that_calibrate_certifies(tmp_path: Path, settings: dict) -> None:
    """30 groups of 2 images, all right."""
    paths = write_set(tmp_path, n=60, frames=2, strength=30.0)
    others = write_set(tmp_path, n=60, frames=2, strength=30.0, seed=1, changes={"role": "VAL_SELECT"})
    select = {"val_select_logits": others[0], "val_select_labels": others[1]}
    line = say_what_can_be_certified(division(30), configured(**settings))[0]
    smallest = re.search(r"certify: (0\.\d+)\)", line)
    assert smallest
    for alpha, certified in ((float(smallest[1]), True), (float(smallest[1]) * 0.99, False)):
        section = {"bootstrap": 10, "alpha": alpha, **settings}
        assert (
            run_on_set("calibrate", {"scrc": section}, tmp_path, paths, **select)["guarantee"]["certified"] is certified
        )


def test_a_run_that_must_certify_stops_at_split_and_leaves_nothing(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    settings = step_settings(configured(on_infeasible="fail"))["split"]
    with pytest.raises(
        CalibrationError,
        match=r"^nothing can be certified: \d groups in VAL_CALIB; scrc.alpha 0.05 at scrc.delta 0.1 needs 46 without "
        r"an error .*; more drives, a larger split.ratios.val_calib, a larger scrc.alpha, or scrc.on_infeasible: emp",
    ):
        run_step("split", settings, tmp_path / "out", images)
    assert not (tmp_path / "out").exists()
    run_step("split", step_settings(configured(on_infeasible="fail", alpha=0.9))["split"], tmp_path / "out", images)


@pytest.mark.slow
def test_calibrate_counts_the_groups_that_were_said(tmp_path: Path) -> None:
    """The groups of splits.json's VAL_CALIB are those of the labels that train hands on; singles are groups too."""
    images = ingested(tmp_path)
    paths, _ = run_step("split", {"split": {}}, tmp_path, images)
    line = say_what_can_be_certified(read_json(paths["splits"]), configured())[0]
    from natix_lib.data.sets import open_set

    assert f"warning: {len(set(open_set(paths['val_calib_set'], 'VAL_CALIB').groups))} groups in" in line


def test_a_key_of_scrc_repeats_split_only_where_the_run_must_certify() -> None:
    plain = step_settings(configured())["split"]
    assert "scrc" not in plain
    for other in ({"alpha": 0.2}, {"delta": 0.3}, {"sets": "pac"}, {"on_infeasible": "abstain"}):
        assert step_settings(configured(**other))["split"] == plain
    assert step_settings(configured("sweep", on_infeasible="fail"))["split"] == plain
    strict = step_settings(configured(on_infeasible="fail"))["split"]
    assert strict["scrc"]["alpha"] == 0.05
    assert step_settings(configured(on_infeasible="fail", bootstrap=7, tune_cut=False))["split"] == strict
    assert step_settings(configured(on_infeasible="fail", alpha=0.2))["split"] != strict
