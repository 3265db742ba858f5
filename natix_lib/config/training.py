"""The config section `training`: how the classifier is trained."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from natix_lib.config.key import default
from natix_lib.config.section import Section
from natix_lib.grammar import LocalPath, Place


class Optimizer(Section):
    """AdamW."""

    lr: PositiveFloat = default(
        1e-3,
        "Highest learning rate; where the backbone is tuned too, 1e-5 to 5e-5.",
        unit="none",
        source="convention: linear probes of frozen ViT features; it is PyTorch's default of AdamW as well",
    )
    weight_decay: NonNegativeFloat = default(
        1e-4,
        "Weight decay.",
        unit="none",
        source="choice: a hundredth of PyTorch's default, a head alone has little to forget",
    )


class MixedPrecision(Section):
    """Autocast on the GPU; logits that policies are fitted on are always computed in float32."""

    enabled: bool = default(
        True, "Whether a GPU trains in the lower precision dtype.", source="choice: the faster of two, which is sound"
    )
    dtype: Literal["bfloat16", "float16"] = default(
        "bfloat16", "Number format of autocast.", source="choice: float16 gives NaN with DINOv3"
    )


class EarlyStopping(Section):
    """When training stops before its last epoch."""

    monitor: Literal["val_select/acc"] = default(
        "val_select/acc",
        "Figure that chooses the epoch, the accuracy on VAL_SELECT.",
        source="choice: no other figure chooses, so another value is refused",
    )
    mode: Literal["max"] = default(
        "max", "Direction in which the figure improves.", source="choice: accuracy is better when it is higher"
    )
    patience: PositiveInt = default(
        10,
        "Epochs without a better figure after which training stops.",
        unit="epochs",
        source="choice: a fifth of the default epochs",
    )


class Training(Section):
    """How the classifier is trained."""

    epochs: PositiveInt = default(
        50,
        "Most passes over TRAIN.",
        unit="epochs",
        source="choice: enough for a head on cached features, early stopping ends most runs before",
    )
    optimizer: Optimizer = Optimizer()
    mixed_precision: MixedPrecision = MixedPrecision()
    early_stopping: EarlyStopping = EarlyStopping()
    class_weights: Literal["none", "balanced"] = default(
        "balanced",
        "Weights of the classes in the loss; balanced weighs a class by images / (classes x its images). What "
        "they do to logits is taken back in the exported head.",
        source="library: scikit-learn's rule for class_weight balanced; roadwork is rare",
    )
    views: PositiveInt = default(
        4,
        "Cached views of a TRAIN image: the clean one and views - 1 augmented ones.",
        unit="views",
        source="choice: four forward passes an image in all, instead of one an epoch",
    )
    feature_cache: bool = default(
        True,
        "Whether a frozen backbone computes its features once, not once an epoch.",
        source="measured: make bench, the table in docs/performance.md",
    )
    feature_cache_dir: LocalPath = default(
        "",
        "Local folder that keeps features between runs, by weights, transform and data; "
        '"" keeps them in memory for one run.',
        source="choice: nothing is written that was not asked for",
    )
    checkpoint_root: Place = default(
        "",
        "Folder, gs:// or s3:// prefix of the checkpoints that a stopped run continues from, and of features, where "
        'no feature_cache_dir is named; "" keeps none.',
        source="choice: a place must be named by who owns it",
    )
    checkpoint_minutes: PositiveFloat = default(
        10.0,
        "Longest time between two checkpoints within an epoch; one is written after each epoch too.",
        unit="minutes",
        source="choice: a preemption loses little, and writing costs little",
    )
    label_doubts: Literal["show", "drop", "off"] = default(
        "show",
        "What happens to labels of TRAIN that are likely wrong by what the features tell: show lists them in "
        "label_doubts.html, drop leaves their images out of what weights are fitted on too, off does not look.",
        source="choice: a suspicion is no verdict, and it costs seconds",
    )
    seed: NonNegativeInt = default(
        0,
        "Seed of the head's first weights, of the order and of augmentation.",
        unit="none",
        source="convention: the first seed",
    )
