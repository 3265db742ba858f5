"""adapt: backbone + TRAIN and unlabelled images -> merged ExPLoRA teacher, its curve, and a probe before and after.

The adapted backbone has the format of the one it came from, so train takes either. When its probes gain nothing beyond
noise and `explora.promote` is `better`, the weights that go on are the ones that came; the manifest and the report say
so.
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
from natix_lib.contracts import ARTIFACTS, BACKBONE_CONFIG, TRAIN, UNLABELLED, read_manifest, write_manifest
from natix_lib.data.sets import open_set, require_one_division
from natix_lib.distributed.launch import launch, processes_for
from natix_lib.errors import ContractError
from natix_lib.explora.gate import Gain, held_out, require_groups
from natix_lib.explora.learner import COLUMNS
from natix_lib.explora.run import crop_sizes, require_batch
from natix_lib.files import JsonDict, file_table, read_json, write_bytes, write_csv
from natix_lib.reports.render import render_adaptation
from natix_lib.steps import adapt_worker


def run(
    settings: Mapping[str, Any],
    *,
    train_set: str,
    unlabelled_set: str,
    backbone: str,
    adapted_backbone: str,
    adaptation_curve: str,
    adaptation_report: str,
) -> dict[str, float]:
    """Adapt a backbone to the images of TRAIN and those without a label.

    Args:
        settings: What adapt reads of the config: the keys of `AdaptSettings`.
        train_set: Folder with the set of TRAIN: most groups are adapted to, the probes before and after ask about the
            others.
        unlabelled_set: Folder with the images without a label, which the backbone adapts to as well.
        backbone: Folder of the backbone to adapt.
        adapted_backbone: Folder to write the adapted backbone to.
        adaptation_curve: Path to write the losses to, as CSV with one row an optimiser step.
        adaptation_report: Path to write the report to, as HTML.

    Returns:
        kNN and linear accuracy before and after on the groups that were held out, the gain of both together with its
        interval and p-value, whether the adapted weights go on, and millions of trained parameters.

    Raises:
        NatixError: If an input breaks its contract, a setting does not fit, or a loss is not finite.
    """
    adapt_settings = config.parse(AdaptSettings, settings)
    manifest = read_manifest(backbone, "backbone")
    description = read_json(Path(backbone) / BACKBONE_CONFIG)
    after: Any = build_backbone(description)
    crop_sizes(after.config, adapt_settings.image_size)
    explora, num_gpus, nodes = adapt_settings.explora, adapt_settings.num_gpus, adapt_settings.nodes
    require_batch(explora, processes_for(num_gpus, nodes))
    train, unlabelled = open_set(train_set, TRAIN), open_set(unlabelled_set, UNLABELLED)
    require_one_division({"train_set": train, "unlabelled_set": unlabelled})
    held, groups = held_out(train.groups, train.labels, explora.probe_share), len(set(train.groups))
    require_groups(len(held), groups, explora.promote)
    paths = {"train_set": train_set, "unlabelled_set": unlabelled_set, "backbone": backbone}
    print(
        f"adapting to {groups - len(held)} of the {groups} groups of TRAIN, the probes ask about {len(held)}; "
        f"{len(unlabelled)} images have no label",
        flush=True,
    )
    inputs = adapt_worker.Inputs(train, unlabelled, backbone, description, manifest)
    state, figures = launch(
        "adapt",
        adapt_worker.__name__,
        lambda: adapt_worker.compute(adapt_settings, inputs),
        adapt_settings,
        paths,
        num_gpus,
        nodes,
    )
    after.load_state_dict(state, strict=True)
    probes, gain, (images, others, asked) = figures["probe"], Gain(**figures["gain"]), figures["images"]
    promoted = explora.promote == "always" or gain.beyond_noise
    adaptation: JsonDict = {
        "method": "explora",
        "promoted": promoted,
        "base_sha256": manifest["weights_sha256"],
        "dataset_fingerprint": train.dataset_fingerprint,
        "splits_sha256": train.splits_sha256,
        "images": images,
        "unlabelled": others,
        "asked": {"images": asked, "groups": len(held)},
        "settings": explora.model_dump(mode="json"),
        "trained": figures["trained"],
        "trained_parameters": figures["counts"][0],
        "probe": probes,
        "gain": figures["gain"],
    }
    _write(Path(adapted_backbone), Path(backbone), after if promoted else None, manifest, adaptation)
    write_csv(adaptation_curve, [COLUMNS, *([row[name] for name in COLUMNS] for row in figures["history"])])
    write_bytes(
        adaptation_report, render_adaptation(manifest, adaptation, figures["history"], figures["counts"]).encode()
    )
    before_after = ", ".join(f"{m} {probes['before'][m]:.3f} -> {probes['after'][m]:.3f}" for m in ("knn", "linear"))
    print(
        f"{asked} held-out images: {before_after}, gain {gain.mean:+.3f} in [{gain.low:+.3f}, {gain.high:+.3f}]; "
        + ("the adapted backbone goes on" if promoted else "not beyond noise: the backbone goes on as it came"),
        flush=True,
    )
    return {
        **{f"{method}_{name}": probes[name][method] for name in probes for method in ("knn", "linear")},
        **{"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "gain_p": gain.p},
        "promoted": float(promoted),
        "trained_millions": figures["counts"][0] / 1e6,
        "steps": len(figures["history"]),
    }


def _write(folder: Path, base: Path, after: Any, manifest: JsonDict, adaptation: JsonDict) -> None:
    """A backbone folder: the base's files, the adapted weights in place of the base's; the new manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name in manifest["files"] if after is None or not _holds_weights(name)]
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
    body = {key: value for key, value in manifest.items() if key not in ("artifact", "schema_version", "files")}
    copied = {name: manifest["files"][name] for name in kept}
    files = file_table(folder, ARTIFACTS["adapted_backbone"].manifest, copied)
    body |= {"weights_sha256": weights_sha256(files), "adaptation": adaptation}
    write_manifest(folder, "backbone", body, files)


def _holds_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
