"""Schedules of ExPLoRA, each a function of the OPTIMISER step: gradient accumulation does not change them.

The authors' code counts micro-batches, so the length of a run there depends on how the batch is divided.
"""

import math
from dataclasses import dataclass

from natix_lib.config import Explora

FINAL_LR = 1e-6  # DINOv2
TEMPERATURE_WARMUP = 0.3  # share of the steps, DINOv2: 30 of 100 epochs


@dataclass(frozen=True)
class At:
    """What holds at a step."""

    lr: float
    momentum: float
    teacher_temperature: float
    prototypes_train: bool


def at(step: int, settings: Explora) -> At:
    """Learning rate, teacher momentum and temperature of optimiser step `step`, 0 <= step < settings.steps.

    The learning rate is the configured one times sqrt(batch / 1024), rises linearly during `warmup` and falls as a
    cosine; the momentum rises to 1 as a cosine; the temperature rises linearly during the first 30 %.
    """
    total = settings.steps
    peak = settings.lr * math.sqrt(settings.batch_size / 1024)
    final = min(FINAL_LR, peak)
    warm = round(settings.warmup * total)
    if step < warm:
        lr = peak * (step + 1) / warm
    else:
        lr = final + (peak - final) * _falling((step - warm) / max(total - warm, 1))
    share = min(1.0, step / max(TEMPERATURE_WARMUP * total, 1))
    low, high = settings.teacher_temperature
    return At(
        lr=lr,
        momentum=1 - (1 - settings.teacher_momentum) * _falling(step / total),
        teacher_temperature=low + (high - low) * share,
        prototypes_train=step >= round(settings.freeze_prototypes * total),
    )


def _falling(share: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * share))
