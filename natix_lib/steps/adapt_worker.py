"""What a process of adapt computes: the merged teacher, and probes of the backbone before and after.

Adaptation itself sees images of TRAIN and those without a label, and no labels; the probes, which see labels, are the
first process's after it, on the same GPU. The groups of TRAIN that the probes ask about are held out of adaptation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from natix_lib import config, storage
from natix_lib.backbones.loading import build_backbone, load_backbone
from natix_lib.config.step_settings import AdaptSettings
from natix_lib.contracts import BACKBONE_CONFIG, SETS, TRAIN, UNLABELLED, read_manifest
from natix_lib.data.sets import RoleSet, Together, open_set
from natix_lib.distributed.exchange import Answer
from natix_lib.distributed.processes import be_a_process
from natix_lib.distributed.world import World
from natix_lib.explora.gate import gain, held_out
from natix_lib.explora.learner import LOSSES, Learner
from natix_lib.explora.probe import features_of, probe
from natix_lib.explora.run import Feed, adapt_backbone
from natix_lib.files import JsonDict, read_json
from natix_lib.progress import Lines
from natix_lib.training.precision import autocast_of, reserve_cublas
from natix_lib.transform import Transform


@dataclass(frozen=True)
class Inputs:
    """What adapt reads, opened.

    Attributes:
        train: Images of TRAIN.
        unlabelled: Images without a label.
        backbone: Folder of the backbone to adapt.
        description: Its config.json.
        manifest: The backbone's manifest.
    """

    train: RoleSet
    unlabelled: RoleSet
    backbone: str
    description: JsonDict
    manifest: JsonDict


def compute(settings: AdaptSettings, inputs: Inputs) -> Answer:
    """Adapt a backbone and probe it; every process calls this, the first one's answer counts.

    Args:
        settings: What adapt reads of the config.
        inputs: The opened artifacts that adapt reads; their hashes have been checked.

    Returns:
        The merged state, and `trained`, `counts` and `history` of `explora.run.Adapted`, with `probe`, the accuracies
        `before` and `after`, `gain`, of `explora.gate.Gain`, and `images`, how many were adapted to, with and without
        a label, and how many were asked about.

    Raises:
        NatixError: If an input breaks its contract, a setting does not fit, or a loss is not finite.
    """
    train, manifest = inputs.train, inputs.manifest
    mean, std = (tuple(manifest[key]) for key in ("image_mean", "image_std"))
    reserve_cublas()  # train may follow in this process
    world, lines = World.from_environment(), Lines()
    explora, image_size = settings.explora, settings.image_size

    def say(learner: Learner) -> None:
        if world.first:
            losses = " ".join(f"{name} {learner.history[-1][name]:.4f}" for name in LOSSES)
            lines.progress("steps", learner.step_number, explora.steps, losses)

    if world.first and explora.checkpoint_root:
        storage.require_place("explora.checkpoint_root", explora.checkpoint_root)
    held = held_out(train.groups, train.labels, explora.probe_share)
    images = Together(train, inputs.unlabelled, without=held)
    adapted = adapt_backbone(
        _start(explora, inputs),
        Feed(images, image_size, mean, std, config.Dataloader(num_workers=settings.num_workers).workers),
        explora,
        world,
        {
            "backbone": manifest["weights_sha256"],
            "dataset": train.dataset_fingerprint,
            "splits": train.splits_sha256,
            "image_size": image_size,
        },
        say,
    )
    if not world.first:
        return {}, {}
    before: Any = load_backbone(inputs.backbone, inputs.description)
    after = build_backbone(inputs.description)
    after.load_state_dict(adapted.state, strict=True)
    transform = Transform(image_size, train.resize_shorter_side, False, mean, std)
    dataloader = config.Dataloader(batch_size=explora.device_batch_size, num_workers=settings.num_workers)

    asked = np.array([group in held for group in train.groups])
    probes = {}
    for name, model in (("before", before), ("after", after)):
        model.to(world.device)
        autocast = autocast_of(world.device, explora.precision)
        features = features_of(model, train, transform, dataloader, lines.progress, f"features {name}", autocast)
        model.cpu()
        probes[name] = probe(features[~asked], train.labels[~asked], features[asked], train.labels[asked])
    groups = [group for group in train.groups if group in held]
    gained = gain(probes["before"].right, probes["after"].right, groups, explora.seed)
    adapted_to = int((~asked).sum())
    figures = {
        "trained": adapted.trained,
        "counts": list(adapted.counts),
        "history": adapted.history,
        "probe": {name: each.accuracies for name, each in probes.items()},
        "gain": asdict(gained),
        "images": [adapted_to, len(images) - adapted_to, len(groups)],
    }
    return {name: value.cpu() for name, value in adapted.state.items()}, figures


def _start(explora: config.Explora, inputs: Inputs) -> Any:
    """What adaptation starts from: the backbone as it came, or new weights in its place, alike in every process."""
    if not explora.from_scratch:
        return load_backbone(inputs.backbone, inputs.description)
    torch.manual_seed(explora.seed)
    return build_backbone(inputs.description)


def compute_from_paths(settings: Mapping[str, Any], paths: Mapping[str, str]) -> Answer:
    """Compute in a process that was started for it: what the step has parsed and opened is so here once more.

    Args:
        settings: The settings as JSON.
        paths: Paths of `train_set`, `unlabelled_set` and `backbone`, whose hashes have been checked.
    """
    train, unlabelled = (open_set(paths[SETS[name]], name, hash_files=False) for name in (TRAIN, UNLABELLED))
    backbone = paths["backbone"]
    description = read_json(Path(backbone) / BACKBONE_CONFIG)
    manifest = read_manifest(backbone, "backbone", hash_files=False)
    return compute(config.parse(AdaptSettings, settings), Inputs(train, unlabelled, backbone, description, manifest))


if __name__ == "__main__":
    be_a_process(compute_from_paths)
