"""What a process of adapt computes: the merged teacher, and probes of the backbone before and after.

Adaptation itself opens TRAIN alone; the probes, which see labels, are the first process's after it, on the same GPU.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natix_lib import config
from natix_lib.backbones.loading import build_backbone, load_backbone
from natix_lib.bundle.transform import Transform
from natix_lib.config.step_settings import AdaptSettings
from natix_lib.contracts import PROBE, TRAIN, VAL_SELECT, read_manifest
from natix_lib.data.dataset import open_role
from natix_lib.distributed.world import World
from natix_lib.explora.learner import LOSSES, Learner
from natix_lib.explora.probe import Probe, features_of, probe
from natix_lib.explora.run import adapt_backbone
from natix_lib.files import JsonDict, read_json
from natix_lib.progress import Lines

SAID_EVERY = 20  # lines of progress in a run


def compute(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> tuple[dict[str, Tensor], JsonDict]:
    """Adapt a backbone and probe it; every process calls this, the first one's answer counts.

    Args:
        settings: `AdaptSettings`.
        inputs: Paths of `dataset`, `splits` and `backbone`.

    Returns:
        The merged state, and `trained`, `counts` and `history` of `explora.run.Adapted` with `probe`, a dict of
        `before` and `after`.

    Raises:
        NatixError: If an input breaks its contract, a setting does not fit, or a loss is not finite.
    """
    wanted = config.parse(AdaptSettings, settings)
    world = World.from_environment()
    facts = read_manifest(inputs["backbone"], "backbone")
    view = open_role("adapt", TRAIN, inputs["dataset"], inputs["splits"])
    every = max(1, wanted.explora.steps // SAID_EVERY)
    lines = Lines()

    def say(learner: Learner) -> None:
        done = learner.step_number
        if world.first and (done % every == 0 or done == wanted.explora.steps):
            losses = " ".join(f"{name} {learner.history[-1][name]:.4f}" for name in LOSSES)
            lines.say(f"step {done}/{wanted.explora.steps}: {losses}")

    adapted = adapt_backbone(
        load_backbone(inputs["backbone"]),
        view,
        wanted.explora,
        wanted.image_size,
        (tuple(facts["image_mean"]), tuple(facts["image_std"])),
        wanted.num_workers,
        world,
        {
            "backbone": facts["weights_sha256"],
            "dataset": view.dataset_fingerprint,
            "splits": view.splits_sha256,
            "image_size": wanted.image_size,
        },
        say,
    )
    if not world.first:
        return {}, {}
    before: Any = load_backbone(inputs["backbone"])
    after = build_backbone(before.config.to_dict())
    after.load_state_dict(adapted.state, strict=True)
    probes = probes_of({"before": before, "after": after}, inputs, facts, wanted, lines, world.device)
    told = {
        "trained": adapted.trained,
        "counts": list(adapted.counts),
        "history": adapted.history,
        "probe": {name: asdict(found) for name, found in probes.items()},
    }
    return {name: value.cpu() for name, value in adapted.state.items()}, told


def probes_of(
    backbones: Mapping[str, nn.Module],
    inputs: Mapping[str, str],
    facts: JsonDict,
    wanted: AdaptSettings,
    lines: Lines,
    device: torch.device,
) -> dict[str, Probe]:
    """What each backbone's features tell of VAL_SELECT, with TRAIN's labels as the reference."""
    train, select = (open_role(PROBE, role, inputs["dataset"], inputs["splits"]) for role in (TRAIN, VAL_SELECT))
    mean, std = (tuple(facts[key]) for key in ("image_mean", "image_std"))
    stored = int(read_json(Path(inputs["dataset"]) / "dataset.json")["resize_shorter_side"])
    transform = Transform(wanted.image_size, stored, False, mean, std)
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
