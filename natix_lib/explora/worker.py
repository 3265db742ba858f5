"""The part of adapt that runs once, or once on each of several GPUs: torchrun's target.

A request and its result are files, so the single process and the many take the same way. Only TRAIN is opened.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from natix_lib import config, errors
from natix_lib.backbones.loading import load_backbone
from natix_lib.contracts import TRAIN, read_manifest
from natix_lib.data.dataset import open_role
from natix_lib.errors import NatixError, TrainingError
from natix_lib.explora.learner import LOSSES, Learner
from natix_lib.explora.run import adapt_backbone
from natix_lib.files import JsonDict, read_json, write_json

STATE, FACTS, FAULT = "state.safetensors", "facts.json", "fault.json"
SAID_EVERY = 20  # lines of progress in a run


def adapt_in_processes(
    settings: Mapping[str, Any], dataset: str, splits: str, backbone: str, folder: Path, processes: int
) -> tuple[dict[str, Tensor], JsonDict]:
    """Adapt a backbone, by torchrun when there is to be more than one process.

    Args:
        settings: `config.AdaptSettings`.
        dataset: Dataset folder.
        splits: splits.json.
        backbone: Backbone folder.
        folder: For the request and the result.
        processes: One for each GPU.

    Returns:
        The merged state, and `trained`, `counts` and `history` of `explora.run.Adapted`.

    Raises:
        NatixError: Of the process that failed.
    """
    request = folder / "request.json"
    inputs = {"dataset": dataset, "splits": splits, "backbone": backbone, "folder": str(folder)}
    write_json(request, {**inputs, "settings": dict(settings), "processes": processes})
    if processes == 1:
        serve(request)
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run([*command, "-m", "natix_lib.explora.worker", str(request)], check=False)
        if done.returncode:
            raise _fault(folder, done.returncode)
    return load_file(folder / STATE), read_json(folder / FACTS)


def _fault(folder: Path, code: int) -> NatixError:
    if not (folder / FAULT).is_file():
        return TrainingError(f"a training process ended with exit code {code} and gave no reason")
    found = read_json(folder / FAULT)
    kind: Any = getattr(errors, found["kind"], NatixError)
    error: NatixError = kind(found["message"])
    return error


def serve(request: Path) -> None:
    """Do what a request file asks, as one of its processes; the first one writes the result."""
    asked = read_json(request)
    wanted = config.parse(config.AdaptSettings, asked["settings"])
    facts = read_manifest(asked["backbone"], "backbone")
    view = open_role("adapt", TRAIN, asked["dataset"], asked["splits"])
    first = int(os.environ.get("RANK", "0")) == 0
    every = max(1, wanted.explora.steps // SAID_EVERY)

    def say(learner: Learner) -> None:
        done = learner.step_number
        if first and (done % every == 0 or done == wanted.explora.steps):
            losses = " ".join(f"{name} {learner.history[-1][name]:.4f}" for name in LOSSES)
            print(f"step {done}/{wanted.explora.steps}: {losses}", flush=True)

    adapted = adapt_backbone(
        load_backbone(asked["backbone"]),
        view,
        wanted.explora,
        wanted.image_size,
        (tuple(facts["image_mean"]), tuple(facts["image_std"])),
        wanted.num_workers,
        asked["processes"],
        {
            "backbone": facts["weights_sha256"],
            "dataset": view.dataset_fingerprint,
            "splits": view.splits_sha256,
            "image_size": wanted.image_size,
        },
        say,
    )
    if first:
        folder = Path(asked["folder"])
        save_file({name: value.cpu().contiguous() for name, value in adapted.state.items()}, folder / STATE)
        write_json(
            folder / FACTS,
            {"trained": adapted.trained, "counts": list(adapted.counts), "history": adapted.history},
        )


def main() -> None:
    """Serve, and leave the reason of a failure where the step finds it."""
    request = Path(sys.argv[1])
    torch.set_flush_denormal(True)
    try:
        serve(request)
    except NatixError as error:
        folder = Path(json.loads(request.read_text())["folder"])
        write_json(folder / FAULT, {"kind": type(error).__name__, "message": str(error)})
        sys.exit(2)


if __name__ == "__main__":
    main()
