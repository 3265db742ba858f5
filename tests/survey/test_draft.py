"""The config that is drafted for machines and class names that the test makes up."""

from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.config import Config, Scrc, Split
from natix_lib.steps.certifiable import terms_of
from natix_lib.survey.draft import draft, text
from natix_lib.survey.machine import BASE, GIB, SMALL, Gpu, Machine
from natix_lib.survey.words import notes
from tests.survey.test_look import pictures, seen

TERMS = terms_of(Scrc())


def drafted(folder: Path, machine: Machine, *classes: str, **given: Any) -> Config:
    found = seen(pictures(folder / "set", *classes, count=6), folder / "scratch")
    values = {"data": {"data_root": str(folder / "set")}, **given}
    said = notes(found, Split(), TERMS, 224, machine)
    (folder / "x.yaml").write_text(text(draft(values, found, machine, TERMS), said, "Written by a test."))
    return config.load(folder / "x.yaml")


@pytest.mark.parametrize(
    ("cpus", "gpus", "backbone", "workers", "num_gpus"),
    [(4, 0, SMALL, None, 0), (16, 1, BASE, 8, 1), (4, 2, BASE, 4, 2), (2, 1, BASE, None, 1)],
)
def test_the_machine_decides_the_backbone_its_gpus_and_who_decodes(
    tmp_path: Path, cpus: int, gpus: int, backbone: Any, workers: int | None, num_gpus: int
) -> None:
    machine = Machine(cpus, [Gpu("Some GPU", 24 * GIB)] * gpus, "torch", False)
    loaded = drafted(tmp_path, machine, "None", "Roadwork")
    assert loaded.model.backbone_id == backbone.name and loaded.model.freeze_backbone
    assert (loaded.data.dataloader.num_workers, loaded.hardware.num_gpus) == (workers, num_gpus)


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("None", "Roadwork"), ["Roadwork"]),
        (("roadwork", "street"), ["roadwork"]),
        (("cones", "no_cones"), ["cones"]),
        (("Background", "barrier"), ["barrier"]),
        (("cats", "dogs"), []),
        (("none", "clear"), []),
        (("None", "Roadwork", "Event"), []),
    ],
)
def test_the_positive_class_is_written_only_where_the_names_tell_it(
    tmp_path: Path, classes: tuple[str, ...], positive: list[str]
) -> None:
    loaded = drafted(tmp_path, Machine(2, [], "torch", False), *classes)
    assert loaded.data.positive_classes == positive
    assert ("  # positive_classes: " in (tmp_path / "x.yaml").read_text()) == (not positive)


def test_what_was_set_wins_over_what_would_be_drafted(tmp_path: Path) -> None:
    machine = Machine(8, [], "torch", False)
    given = {"model": {"backbone_id": "own/backbone"}, "hardware": {"num_gpus": 3, "node_selector": {"a": "b"}}}
    loaded = drafted(tmp_path, machine, "None", "Roadwork", **given)
    assert loaded.model.backbone_id == "own/backbone" and loaded.export.policy == "calibrate"
    assert (loaded.hardware.num_gpus, loaded.hardware.node_selector) == (3, {"a": "b"})
