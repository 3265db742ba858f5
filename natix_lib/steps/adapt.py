"""adapt, phase 4: backbone + TRAIN images -> merged ExPLoRA teacher, its curve, and a probe before and after.

The adapted backbone has the format of the one it came from, so train takes either. When it probes worse and
`explora.promote` is `better`, the weights that go on are the ones that came; the manifest and the report say so.
"""

import csv
import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from natix_lib import config
from natix_lib.backbones.loading import build_backbone, load_backbone, quiet_transformers, weights_sha256
from natix_lib.bundle.transform import Transform
from natix_lib.contracts import PROBE, TRAIN, VAL_SELECT, read_manifest, write_manifest
from natix_lib.data.dataset import open_role
from natix_lib.errors import ContractError
from natix_lib.explora.learner import COLUMNS
from natix_lib.explora.probe import Probe, features_of, probe
from natix_lib.explora.run import crop_sizes, require_batch
from natix_lib.explora.worker import adapt_in_processes
from natix_lib.files import JsonDict, read_json, write_bytes
from natix_lib.reports.render import render_adaptation
from natix_lib.steps.progress import Lines


def run(
    settings: Mapping[str, Any],
    dataset: str,
    splits: str,
    backbone: str,
    adapted_backbone: str,
    adaptation_curve: str,
    adaptation_report: str,
) -> dict[str, float]:
    """Adapt a backbone to the TRAIN images.

    Args:
        settings: `config.AdaptSettings`.
        dataset: Dataset folder.
        splits: splits.json.
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
    wanted = config.parse(config.AdaptSettings, settings)
    facts = read_manifest(backbone, "backbone")
    processes = max(1, wanted.num_gpus) if torch.cuda.is_available() else 1
    before = load_backbone(backbone)
    crop_sizes(before.config, wanted.image_size)
    require_batch(wanted.explora, processes)
    lines = Lines()
    with tempfile.TemporaryDirectory() as scratch:
        state, found = adapt_in_processes(settings, dataset, splits, backbone, Path(scratch), processes)
    description: Any = before.config
    after = build_backbone(description.to_dict())
    after.load_state_dict(state, strict=True)
    figures = _probes({"before": before, "after": after}, dataset, splits, facts, wanted, lines)
    promoted = wanted.explora.promote == "always" or figures["after"].mean >= figures["before"].mean
    adaptation: JsonDict = {
        "method": "explora",
        "promoted": promoted,
        "base_sha256": facts["weights_sha256"],
        **_provenance(dataset, splits),
        "settings": wanted.explora.model_dump(mode="json"),
        "trained": found["trained"],
        "trained_parameters": found["counts"][0],
        "probe": {name: {"knn": p.knn, "linear": p.linear} for name, p in figures.items()},
    }
    _write(Path(adapted_backbone), Path(backbone), after if promoted else None, facts, adaptation)
    _write_curve(adaptation_curve, found["history"])
    write_bytes(adaptation_report, render_adaptation(facts, adaptation, found["history"], found["counts"]).encode())
    lines.say(
        f"VAL_SELECT: kNN {figures['before'].knn:.3f} -> {figures['after'].knn:.3f}, "
        f"linear {figures['before'].linear:.3f} -> {figures['after'].linear:.3f}; "
        + ("the adapted backbone goes on" if promoted else "worse: the backbone goes on as it came")
    )
    return {
        **{f"{kind}_{name}": getattr(p, kind) for name, p in figures.items() for kind in ("knn", "linear")},
        "promoted": float(promoted),
        "trained_millions": found["counts"][0] / 1e6,
        "steps": len(found["history"]),
    }


def _probes(
    backbones: Mapping[str, torch.nn.Module],
    dataset: str,
    splits: str,
    facts: JsonDict,
    wanted: config.AdaptSettings,
    lines: Lines,
) -> dict[str, Probe]:
    """What each backbone's features tell of VAL_SELECT, with TRAIN's labels as the reference."""
    train, select = (open_role(PROBE, role, dataset, splits) for role in (TRAIN, VAL_SELECT))
    mean, std = (tuple(facts[key]) for key in ("image_mean", "image_std"))
    stored = int(read_json(Path(dataset) / "dataset.json")["resize_shorter_side"])
    transform = Transform(wanted.image_size, stored, False, mean, std)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    feed = config.Dataloader(batch_size=wanted.explora.device_batch_size, num_workers=wanted.num_workers)
    found = {}
    for name, backbone in backbones.items():
        backbone.to(device)
        reference, query = (
            features_of(backbone, view, transform, feed, lines.progress, f"features {name}") for view in (train, select)
        )
        backbone.cpu()
        found[name] = probe(reference, train.labels, query, select.labels)
    return found


def _provenance(dataset: str, splits: str) -> JsonDict:
    view = open_role("adapt", TRAIN, dataset, splits)
    return {"dataset_fingerprint": view.dataset_fingerprint, "splits_sha256": view.splits_sha256, "images": len(view)}


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


def _write_curve(path: str, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([f"{row[name]:.8g}" for name in COLUMNS] for row in history)
    write_bytes(path, text.getvalue().encode())
