"""A small training in a process of its own, which tests end: `python -m tests.training.killed BACKBONE PATH ROOT OUT`.

`PATH` is one of `CHANGES`. It writes the weights, the logits and metrics.csv to the folder `OUT`, which is there
when all is done.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft  # noqa: F401  # these two before it says that it has begun: they take longer than the training
import sklearn.linear_model  # noqa: F401
import torch
from safetensors.torch import save_file

from natix_lib.backbones.loading import load_backbone
from natix_lib.backbones.patches import Patches, PatchesConfig
from natix_lib.files import write_csv
from natix_lib.training import features, keeper
from natix_lib.training.fit import metrics_rows
from natix_lib.training.fitting import Reports
from natix_lib.training.recipe import Sets
from natix_lib.training.run import Trained, train_classifier
from tests.training.test_run import TRANSFORM, Squares, recipe

CHANGES: dict[str, dict[str, Any]] = {
    "features": {
        "model": {"head_type": "mlp", "dropout_rate": 0.3},
        "training": {"epochs": 40, "early_stopping": {"patience": 40}},
    },
    "pixels": {
        "model": {"freeze_backbone": False, "dropout_rate": 0.3},
        "training": {"epochs": 4, "optimizer": {"lr": 3e-4}, "early_stopping": {"patience": 40}},
    },
    "attentive, LoRA": {
        "model": {"freeze_backbone": False, "pooling": ["attentive"]},
        "training": {"epochs": 4, "fine_tune": {"method": "lora"}, "early_stopping": {"patience": 40}},
    },
    "patches, grid": {
        "training": {
            "epochs": 40,
            "grid": {"lr": [1e-3, 1e-2], "dropout_rate": [0.0, 0.3]},
            "early_stopping": {"patience": 40},
        },
    },
}


def train(backbone: str, path: str, root: str, reports: Reports) -> Trained:
    """Train on one of the paths, with dropout; `root` may be empty."""
    changes = {name: dict(values) for name, values in CHANGES[path].items()}
    changes["training"] |= {"checkpoint_root": root, "checkpoint_minutes": 1e-9}
    sets = Sets(Squares(96, 1), Squares(32, 2), Squares(40, 3), 2, "data")
    loaded = Patches(PatchesConfig(8)) if "patches" in path else load_backbone(backbone)
    print("begun", flush=True)
    return train_classifier(loaded, "weights", sets, recipe(TRANSFORM, **changes), reports)


def main() -> None:
    """Train slowly enough that a signal meets each part of it."""
    torch.set_num_threads(1)
    backbone, path, root, out = sys.argv[1:]
    keeper.LEAST_SECONDS, features.SHARD = 0.0, 16
    pause = lambda *_: time.sleep(0.02)  # noqa: E731
    trained = train(backbone, path, root, Reports(pause, pause))
    folder = Path(f"{out}.{os.getpid()}")
    folder.mkdir()
    save_file(trained.classifier.state_dict(), folder / "model.safetensors")
    for role in ("val_select", "val_calib"):
        np.save(folder / f"{role}.npy", getattr(trained, f"{role}_logits"), allow_pickle=False)
    write_csv(folder / "metrics.csv", metrics_rows(trained.history))
    folder.rename(out)


if __name__ == "__main__":
    main()
