"""The config section `training`: how the classifier is trained."""

import math
from collections.abc import Sized
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from natix_lib.config.fine_tuning import FineTune
from natix_lib.config.key import Fraction, default
from natix_lib.config.section import Section
from natix_lib.documents import Pooling, Poolings
from natix_lib.grammar import LocalPath, Place

MOST_HEADS = 100


Determinism = Literal["exact", "fast"]


class Optimizer(Section):
    """AdamW."""

    lr: PositiveFloat = default(
        1e-3,
        "Highest learning rate; where all of the backbone is tuned too, 1e-5 to 5e-5.",
        unit="none",
        source="convention: linear probes of frozen ViT features; it is PyTorch's default of AdamW as well",
    )
    weight_decay: NonNegativeFloat = default(
        1e-4,
        "Weight decay.",
        unit="none",
        source="choice: a hundredth of PyTorch's default, a head alone has little to forget",
    )
    decayed: Literal["all", "matrices"] = default(
        "all",
        "Which weights decay: all that are trained, or matrices alone, without norms, biases, layer scales and tokens.",
        source="library: PyTorch's AdamW; the fine-tuning of MAE, arXiv 2111.06377, decays matrices alone",
    )
    warmup: Fraction = default(
        0.0,
        "Share of the steps in which the learning rate rises from 0, before it falls as a cosine.",
        unit="share of steps",
        source="choice: a head alone needs none; the fine-tuning of MAE, arXiv 2111.06377, has 0.05 to 0.1",
    )
    clip: NonNegativeFloat = default(
        0.0,
        "Largest norm of all gradients together; 0 clips nothing.",
        unit="none",
        source="choice: a head alone needs none; ExPLoRA's DINOv2 clips at 3",
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

    monitor: Literal["val_select/acc", "val_select/macro_f1", "val_select/mcc", "val_select/loss"] = default(
        "val_select/acc",
        "Figure of VAL_SELECT that chooses the epoch and that patience counts: accuracy; macro-F1 or Matthews' "
        "correlation, which see a rare class; or cross-entropy. The lower loss breaks ties.",
        source="choice: what most people compare classifiers by",
    )
    mode: Literal["auto", "max", "min"] = default(
        "auto",
        "Direction in which the figure improves; auto is the one that fits, min for the loss, max for the others, and "
        "another one is refused.",
        source="choice: a figure has one direction",
    )
    patience: PositiveInt = default(
        10,
        "Epochs without a better figure after which training stops.",
        unit="epochs",
        source="choice: a fifth of the default epochs",
    )

    @property
    def fitting_mode(self) -> Literal["max", "min"]:
        """The direction in which the monitored figure improves."""
        return "min" if self.monitor == "val_select/loss" else "max"

    @model_validator(mode="after")
    def _check(self) -> "EarlyStopping":
        if self.mode not in ("auto", self.fitting_mode):
            raise ValueError(
                f"training.early_stopping.mode must be {self.fitting_mode} or auto for the monitor {self.monitor}, "
                f"got {self.mode}"
            )
        return self


class Grid(Section):
    """Heads that are trained at once on cached features, one for each combination; VAL_SELECT says which is kept."""

    lr: list[PositiveFloat] = default(
        [],
        "Highest learning rates to try; none is training.optimizer.lr alone.",
        unit="none",
        source="choice: one head; which rate fits depends on the backbone, DINOv2, arXiv 2304.07193, tries 13",
    )
    weight_decay: list[NonNegativeFloat] = default(
        [],
        "Weight decays to try; none is training.optimizer.weight_decay alone.",
        unit="none",
        source="choice: as lr",
    )
    dropout_rate: list[Annotated[float, Field(ge=0.0, lt=1.0)]] = default(
        [],
        "Shares of features hidden by dropout to try; none is model.dropout_rate alone.",
        unit="share of features",
        source="choice: as lr",
    )

    pooling: list[Poolings] = default(
        [],
        "Lists of poolings to try, each as model.pooling but for attentive; none is model.pooling alone.",
        source="choice: as lr; DINOv2, arXiv 2304.07193, tries CLS with and without the mean",
    )

    @field_validator("lr", "weight_decay", "dropout_rate", "pooling")
    @classmethod
    def _check_repeats(cls, values: list[Any], info: ValidationInfo) -> list[float]:
        if any(value in values[:row] for row, value in enumerate(values)):
            raise ValueError(f"training.grid.{info.field_name} must name each value once, got {values}")
        return values

    @field_validator("pooling")
    @classmethod
    def _check_pooling(cls, values: list[list[Pooling]]) -> list[list[Pooling]]:
        if ["attentive"] in values:
            raise ValueError(f"training.grid.pooling must not name attentive, which learns on pixels, got {values}")
        return values

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        axes: tuple[Sized, ...] = (self.lr, self.weight_decay, self.dropout_rate, self.pooling)
        size = math.prod(max(1, len(values)) for values in axes)
        if size > MOST_HEADS:
            raise ValueError(f"training.grid may have at most {MOST_HEADS} combinations, got {size}")
        return self


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
    grid: Grid = Grid()
    class_weights: Literal["none", "balanced", "sampled"] = default(
        "balanced",
        "How rare classes count more; balanced weighs a class in the loss by images / (classes x its images), sampled "
        "draws all classes equally often. What either does to logits is taken back in the exported head.",
        source="library: scikit-learn's rule for class_weight balanced; roadwork is rare",
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = default(
        0.0,
        "Share of a label that is spread over all classes in the training loss.",
        unit="share of label",
        source="choice: none, probabilities are wanted; the fine-tuning of MAE, arXiv 2111.06377, has 0.1",
    )
    mixup: NonNegativeFloat = default(
        0.0,
        "Alpha of mixup, which blends images and labels of a batch in pairs, where training sees pixels; 0 is none.",
        unit="none",
        source="choice: none; mixup, arXiv 1710.09412, has 0.1 to 0.4, the fine-tuning of MAE 0.8",
    )
    fine_tune: FineTune = FineTune()
    views: PositiveInt = default(
        4,
        "Cached views of a TRAIN image: the clean one, or the three of model.use_multiview, and views - 1 augmented "
        "ones.",
        unit="views",
        source="choice: four forward passes an image in all, instead of one an epoch",
    )
    augmentation: Literal["none", "street", "street-strong"] = default(
        "street",
        "Profile of the augmented views: street crops, mirrors and changes the light; street-strong does more of it "
        "and adds blur, JPEG and black bars; none takes images as they are, so no augmented view is cached.",
        source="choice: what holds for a street; cones at the edge of a picture survive its crops",
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
    determinism: Determinism = default(
        "exact",
        "How a GPU computes: exact gives the same weights each time on the same kind of GPU; fast takes the fastest "
        "algorithms and TensorFloat-32. On a CPU both are exact, and logits that policies are fitted on are float32 "
        "in both.",
        source="choice: a result that can be repeated; what it costs depends on the backbone and was not measured",
    )
    tensorboard_root: Place = default(
        "",
        'Folder, gs:// or s3:// prefix in which TensorBoard finds the curve of each run as it goes on; "" is none.',
        source="choice: a place must be named by who owns it",
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
