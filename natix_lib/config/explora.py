"""The config section `explora`: how adapt goes on training the backbone on images without labels, by ExPLoRA.

The authors' training config was not found: what a default owes to DINOv2 instead, and what of theirs is unknown, its
source says. Three things that DINOv2's ssl_default_config.yaml has are not built, and whether the authors' own config
keeps them is unknown: drop path (0.3 there), a decay of the learning rate from block to block (0.9) and a rate of its
own for the patch embedding (0.2).

`freeze_prototypes` is a share, not a number of steps: at the default length it is the paper's, and a short run is not
frozen throughout.
"""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from natix_lib.config.key import Fraction, OpenFraction, default
from natix_lib.config.section import Section
from natix_lib.grammar import Place

EXPLORA = "paper: ExPLoRA, arXiv 2406.10973"
AUTHORS = f"{EXPLORA}, or its authors' code"
UNKNOWN = "what ExPLoRA's authors used is unknown"
DINOV2 = "library: DINOv2's ssl_default_config.yaml"


class Explora(Section):
    """Adaptation of the backbone to the images of TRAIN, without their labels: ExPLoRA, arXiv 2406.10973."""

    steps: PositiveInt = default(6250, "Length of the adaptation.", unit="optimiser steps", source=EXPLORA)
    batch_size: PositiveInt = default(
        1024, "Images of an optimiser step, over all GPUs and nodes.", unit="images", source=EXPLORA
    )
    device_batch_size: PositiveInt = default(
        32,
        "Images at once on each GPU; gradients are accumulated up to batch_size.",
        unit="images",
        source=AUTHORS,
    )
    lr: NonNegativeFloat = default(
        1e-3,
        "Highest learning rate of AdamW at 1,024 images, scaled by sqrt(batch_size / 1024).",
        unit="none",
        source=AUTHORS,
    )
    weight_decay: NonNegativeFloat = default(
        0.0,
        "Weight decay of AdamW.",
        unit="none",
        source=f"choice: adapters of low rank are bound enough; DINOv2's default is 0.04, rising to 0.4, {UNKNOWN}",
    )
    warmup: Fraction = default(
        0.1,
        "Share of the steps in which the learning rate rises from 0.",
        unit="share of steps",
        source=f"{DINOV2}, 10 of 100 epochs; {UNKNOWN}",
    )
    clip: PositiveFloat = default(3.0, "Largest norm of all gradients together.", unit="none", source=DINOV2)
    rank: PositiveInt = default(64, "Rank of the LoRA matrices.", unit="dimensions", source=EXPLORA)
    alpha: PositiveFloat = default(
        1.0,
        "Numerator of LoRA's scale, alpha / rank.",
        unit="none",
        source="paper: ExPLoRA, arXiv 2406.10973, 1/64 in its authors' code",
    )
    unfrozen_blocks: NonNegativeInt = default(
        1, "Last blocks of the backbone that are trained whole, without LoRA.", unit="blocks", source=EXPLORA
    )
    from_scratch: bool = default(
        False,
        "Whether the backbone's architecture gets new random weights, all of which are trained, the patch embedding "
        "too; rank, alpha and unfrozen_blocks are then not read.",
        source="choice: ExPLoRA goes on from weights that are there",
    )
    prototypes: Annotated[int, Field(ge=2)] = default(
        65536, "Prototypes that the projection head compares with.", unit="prototypes", source=DINOV2
    )
    head_hidden: PositiveInt = default(
        2048, "Width of the projection head's hidden layers.", unit="dimensions", source=DINOV2
    )
    head_bottleneck: PositiveInt = default(
        256, "Width of the projection head before the prototypes.", unit="dimensions", source=DINOV2
    )
    freeze_prototypes: Fraction = default(
        0.015,
        "Share of the steps, from the first on and rounded, in which the prototypes stay as they were drawn.",
        unit="share of steps",
        source=f"{EXPLORA}, 3 epochs or 3,000 micro-batches, which at 32 images are 94 of 6,250 steps of 1,024",
    )
    teacher_momentum: Fraction = default(
        0.994,
        "Share of the teacher that stays at the first step; it rises to 1.",
        unit="share of weights",
        source=f"library: DINOv2's vitl14.yaml, its default is 0.992; {UNKNOWN}",
    )
    teacher_temperature: tuple[PositiveFloat, PositiveFloat] = default(
        (0.04, 0.07),
        "Temperature of the teacher's softmax at the first step and after the rise.",
        unit="none",
        source=DINOV2,
    )
    student_temperature: PositiveFloat = default(
        0.1, "Temperature of the student's softmax.", unit="none", source="library: DINOv2's DINOLoss"
    )
    koleo_weight: NonNegativeFloat = default(
        0.1, "Weight of the KoLeo loss, which spreads the features of a batch.", unit="none", source=DINOV2
    )
    local_crops: NonNegativeInt = default(
        8, "Small crops of an image beside its two global ones.", unit="crops", source=DINOV2
    )
    mask_share: Fraction = default(
        0.5, "Share of the global crops that have patches masked.", unit="share of crops", source=DINOV2
    )
    mask_ratio: tuple[Fraction, Fraction] = default(
        (0.1, 0.5),
        "Lowest and highest share of patches that are masked in such a crop.",
        unit="share of patches",
        source=DINOV2,
    )
    precision: Literal["bfloat16", "float32"] = default(
        "bfloat16",
        "Number format of a GPU's forward passes; a CPU computes in float32.",
        source="choice: the fastest that is sound, float16 gives NaN with DINOv3",
    )
    gradient_checkpointing: bool = default(
        False,
        "Whether activations are computed twice: less memory, a third more time.",
        source="choice: speed before memory",
    )
    checkpoint_root: Place = default(
        "",
        'Folder, gs:// or s3:// prefix of the checkpoints that a stopped run continues from; "" keeps none.',
        source="choice: a place must be named by who owns it",
    )
    checkpoint_every: PositiveInt = default(
        250,
        "Distance between two checkpoints.",
        unit="optimiser steps",
        source="choice: a preemption loses at most a 25th of the default length",
    )
    promote: Literal["better", "always"] = default(
        "better",
        "Whether the adapted backbone is used only where it probes better than before beyond noise, or always.",
        source="choice: adaptation can harm, and a gain within noise is none",
    )
    probe_share: OpenFraction = default(
        0.2,
        "Share of TRAIN's groups that adaptation does not see and the probes before and after ask about.",
        unit="share of groups",
        source="choice: a gain of a few points is seen in some hundred images, and most are adapted to",
    )
    seed: NonNegativeInt = default(
        0, "Seed of crops, masks and new weights.", unit="none", source="convention: the first seed"
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _check_precision(cls, value: object) -> object:
        if value in ("float16", "fp16", "16-mixed"):
            raise ValueError(f"explora.precision {value} gives NaN with DINOv3: use bfloat16 or float32")
        return value

    @model_validator(mode="after")
    def _check(self) -> "Explora":
        if self.batch_size % self.device_batch_size:
            raise ValueError(
                "explora.batch_size must be a multiple of explora.device_batch_size, "
                f"got {self.batch_size} and {self.device_batch_size}"
            )
        if self.mask_ratio[0] > self.mask_ratio[1]:
            raise ValueError(f"explora.mask_ratio must rise, got {list(self.mask_ratio)}")
        if round(self.freeze_prototypes * self.steps) >= self.steps:
            raise ValueError(
                f"explora.freeze_prototypes {self.freeze_prototypes} leaves none of {self.steps} steps to train them"
            )
        return self
