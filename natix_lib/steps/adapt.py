"""adapt, phase 4: backbone + TRAIN images -> merged ExPLoRA teacher, its curve, and a probe before and after.

The adapted backbone has the format of the one it came from, so train takes either. When it probes worse and
`explora.promote` is `better`, the weights that go on are the ones that came; the manifest and the report say so.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from natix_lib import config
from natix_lib.backbones.loading import build_backbone, load_backbone, quiet_transformers, weights_sha256
from natix_lib.config.step_settings import AdaptSettings
from natix_lib.contracts import TRAIN, VAL_SELECT, read_manifest, write_manifest
from natix_lib.data.sets import open_set, require_one_division
from natix_lib.distributed.launch import launch, processes_for
from natix_lib.errors import ContractError
from natix_lib.explora.learner import COLUMNS
from natix_lib.explora.probe import Probe
from natix_lib.explora.run import crop_sizes, require_batch
from natix_lib.files import JsonDict, read_json, write_bytes, write_csv
from natix_lib.reports.render import render_adaptation
from natix_lib.steps import adapt_worker


def run(
    settings: Mapping[str, Any],
    *,
    train_set: str,
    val_select_set: str,
    backbone: str,
    adapted_backbone: str,
    adaptation_curve: str,
    adaptation_report: str,
) -> dict[str, float]:
    """Adapt a backbone to the TRAIN images.

    Args:
        settings: `AdaptSettings`.
        train_set: Set of TRAIN, the images that it adapts to.
        val_select_set: Set of VAL_SELECT, which the probes before and after ask about.
        backbone: Backbone folder.
        adapted_backbone: Backbone folder to write.
        adaptation_curve: CSV to write, one row an optimiser step.
        adaptation_report: HTML to write.

    Returns:
        kNN and linear accuracy on VAL_SELECT before and after, whether the adapted weights go on, and millions of
        trained parameters.

    Raises:
        NatixError: If an input breaks its contract, a setting does not fit, or a loss is not finite.
    """
    wanted = config.parse(AdaptSettings, settings)
    facts = read_manifest(backbone, "backbone")
    after: Any = build_backbone(read_json(Path(backbone) / "config.json"))
    crop_sizes(after.config, wanted.image_size)
    require_batch(wanted.explora, processes_for(wanted.num_gpus, wanted.nodes))
    train, select = open_set(train_set, TRAIN), open_set(val_select_set, VAL_SELECT)
    require_one_division({"train_set": train, "val_select_set": select})
    inputs = {"train_set": train_set, "val_select_set": val_select_set, "backbone": backbone}
    state, found = launch("adapt", adapt_worker.compute, settings, inputs, wanted.num_gpus, wanted.nodes)
    after.load_state_dict(state, strict=True)
    figures = {name: Probe(**values) for name, values in found["probe"].items()}
    promoted = wanted.explora.promote == "always" or figures["after"].mean >= figures["before"].mean
    adaptation: JsonDict = {
        "method": "explora",
        "promoted": promoted,
        "base_sha256": facts["weights_sha256"],
        "dataset_fingerprint": train.dataset_fingerprint,
        "splits_sha256": train.splits_sha256,
        "images": len(train),
        "settings": wanted.explora.model_dump(mode="json"),
        "trained": found["trained"],
        "trained_parameters": found["counts"][0],
        "probe": found["probe"],
    }
    _write(Path(adapted_backbone), Path(backbone), after if promoted else None, facts, adaptation)
    write_csv(adaptation_curve, [COLUMNS, *([row[name] for name in COLUMNS] for row in found["history"])])
    write_bytes(adaptation_report, render_adaptation(facts, adaptation, found["history"], found["counts"]).encode())
    print(
        f"VAL_SELECT: kNN {figures['before'].knn:.3f} -> {figures['after'].knn:.3f}, "
        f"linear {figures['before'].linear:.3f} -> {figures['after'].linear:.3f}; "
        + ("the adapted backbone goes on" if promoted else "worse: the backbone goes on as it came"),
        flush=True,
    )
    return {
        **{f"{kind}_{name}": getattr(p, kind) for name, p in figures.items() for kind in ("knn", "linear")},
        "promoted": float(promoted),
        "trained_millions": found["counts"][0] / 1e6,
        "steps": len(found["history"]),
    }


def _write(folder: Path, base: Path, after: Any, facts: JsonDict, adaptation: JsonDict) -> None:
    """A backbone folder: the base's files, with the adapted weights in place of its own; its manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name in facts["files"] if after is None or not _holds_weights(name)]
    for name in kept:
        shutil.copyfile(base / name, folder / name)
    if after is not None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, quiet_transformers():
            after.save_pretrained(scratch)
            for path in sorted(Path(scratch).iterdir()):
                if _holds_weights(path.name):
                    shutil.move(path, folder / path.name)
    written = load_backbone(folder).state_dict()
    wrong = [] if after is None else [n for n, v in after.state_dict().items() if not torch.equal(written[n], v)]
    if wrong:
        raise ContractError(f"the adapted backbone {folder} reads back otherwise: {', '.join(wrong[:3])}")
    body = {key: value for key, value in facts.items() if key not in ("artifact", "schema_version", "files")}
    write_manifest(folder, "backbone", {**body, "weights_sha256": weights_sha256(folder), "adaptation": adaptation})


def _holds_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
