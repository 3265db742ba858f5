"""A small run, step by step: what the tests of export, evaluate, the runtime and `natix predict` start from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natix_lib.backbones.loading import weights_sha256
from natix_lib.contracts import STEPS
from natix_lib.files import file_table
from natix_lib.steps import export
from tests.street_sets import ingested_and_split, run_step

TRAIN: dict[str, Any] = {
    "dataloader": {"batch_size": 16, "num_workers": 0},
    "model": {"backbone_id": "tiny", "image_size": 32, "use_multiview": True},
    "training": {"epochs": 10, "views": 2, "optimizer": {"lr": 1e-2}},
}


SETTINGS: dict[str, dict[str, Any]] = {  # of the steps after fetch
    "train": TRAIN,
    "sweep": {"sweep": {}},
    "calibrate": {"scrc": {"alpha": 0.3, "delta": 0.06, "on_infeasible": "empirical", "bootstrap": 50}},
    "export": {"export": {"policy": "calibrate"}},
    "evaluate": {"evaluate": {"bootstrap": 100}},
}


@dataclass
class Chain:
    """Paths of the artifacts of a small run."""

    paths: dict[str, str]

    def inputs(self, step: str, **others: object) -> dict[str, str]:
        return {name: str(others.get(name, self.paths[name])) for name in STEPS[step].inputs}

    def export(self, out: Path, settings: dict[str, Any] | None = None, **others: object) -> dict[str, float]:
        changed = {"policy": "calibrate", **(settings or {})}
        return export.run({"export": changed}, **self.inputs("export", **others), bundle=str(out))


def backbone_sha256(folder: Path) -> str:
    """The one hash of a backbone folder's weights and config."""
    return weights_sha256(file_table(folder, leave_out="backbone.json"))


def make_chain(folder: Path, tiny_backbone: Path) -> Chain:
    """Run every step on small images."""
    made = Chain(ingested_and_split(folder, groups=40))
    fetch = {"backbone_id": str(tiny_backbone), "backbone_revision": "main"}
    for step, values in {"fetch": fetch, **SETTINGS}.items():
        made.paths |= run_step(step, values, folder, made.paths)[0]
    return made
