"""The config: strict typed sections, YAML plus overrides, every mistake reported at once.

PyYAML reads `1e-4` as text and KFP hands ints over as floats inside dicts: both are coerced, and anything else of
the wrong type is refused. Every default names its source.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from natix_lib.documents import MAX_TOLERANCE, HeadType
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict
from natix_lib.grammar import BackboneSource, LocalPath, Place
from natix_lib.hardware import Hardware as Hardware
from natix_lib.section import Section, shown
from natix_lib.section import parse as parse
from natix_lib.strict_yaml import MAX_BYTES, read_yaml

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]

DINOV3_HUB_NAMES = ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")
ROLE_RATIO_NAMES = ("train", "val_select", "val_calib", "test")


def _whole(value: object) -> object:
    """`None` spelt as KFP can pass it: optional pipeline parameters cannot default to null."""
    return None if value in ("", 0) else value


class Dataloader(Section):
    """How images are fed to the backbone."""

    batch_size: PositiveInt = 32  # fits a ViT-L forward at 224 in 16 GB; the first trainer's default
    num_workers: NonNegativeInt = 2  # decoding processes; 0 decodes in the training process


class Columns(Section):
    """Names of the columns of a manifest or Parquet file; an absent optional column is simply not used."""

    image: str = "image"
    label: str = "label"
    group: str = "group"
    source_id: str = "source_id"
    lat: str = "lat"
    lon: str = "lon"
    captured_at: str = "captured_at"
    split: str = "split"
    is_synthetic: str = "is_synthetic"

    @model_validator(mode="after")
    def _check(self) -> "Columns":
        named = [name for name in self.model_dump().values() if name]
        repeated = sorted({name for name in named if named.count(name) > 1})
        if repeated:
            raise ValueError(f"data.columns must name each column once, got {repeated[0]!r} twice")
        return self


class DataSource(Section):
    """What ingest reads."""

    data_root: Place  # a folder, or gs://bucket/prefix
    format: Literal["auto", "manifest", "parquet", "folder"] = "auto"
    manifest: str = (
        ""  # file below data_root; "" finds manifest.csv and its like, metadata.csv, or one table beside images
    )
    columns: Columns = Columns()
    class_names: list[str] = Field(
        default_factory=list
    )  # names of integer labels in order; [] takes the sorted labels found
    positive_classes: list[str] = Field(
        default_factory=list
    )  # classes of the binary score; [] takes the last class of two
    unlabelled: Literal["fail", "drop"] = "fail"  # rows without a label; drop leaves them out and says how many
    resize_shorter_side: PositiveInt = 256  # the usual evaluation resize of ViT at 224 (DINOv2, DINOv3)
    max_reject_fraction: Fraction = 0.01  # more undecodable images than this is an error
    max_pixels: PositiveInt = 178_956_970  # Pillow's limit against decompression bombs, 2 x MAX_IMAGE_PIXELS

    @field_validator("data_root")
    @classmethod
    def _check_root(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("data.data_root must name a folder or gs:// prefix, got an empty text")
        return value

    @field_validator("class_names", "positive_classes")
    @classmethod
    def _check_names(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError(f"data.{info.field_name} must not repeat a class, got {names}")
        return names

    @model_validator(mode="after")
    def _check(self) -> "DataSource":
        unknown = sorted(set(self.positive_classes) - set(self.class_names))
        if self.class_names and unknown:
            raise ValueError(f"data.positive_classes must be among data.class_names, got {unknown}")
        return self


class Data(DataSource):
    """Where the images are and how they are fed."""

    dataloader: Dataloader = Dataloader()


class Ratios(Section):
    """Target share of images of each split role."""

    train: OpenFraction = 0.6
    val_select: OpenFraction = 0.1
    val_calib: OpenFraction = 0.15  # certification needs some 150 accepted at risk .02 (decisions)
    test: OpenFraction = 0.15

    @model_validator(mode="after")
    def _check(self) -> "Ratios":
        ratios = [getattr(self, name) for name in ROLE_RATIO_NAMES]
        if abs(sum(ratios) - 1.0) > 1e-6:
            raise ValueError(f"split.ratios must sum to 1, got {sum(ratios):.3f}: {ratios}")
        return self


class Split(Section):
    """How images are divided into TRAIN, VAL_SELECT, VAL_CALIB and TEST."""

    ratios: Ratios = Ratios()
    seed: NonNegativeInt = 0
    min_per_class: PositiveInt = 1  # images of every class in every role
    use_given: bool = True  # honour a split column or split-named Parquet files, and check them
    gps_radius_m: NonNegativeFloat = 100.0  # places nearer than this are one group; 0 switches it off
    near_duplicate_bits: Annotated[int, Field(ge=-1, le=16)] = 4  # of 64 pHash bits; -1 switches it off


class Model(Section):
    """The backbone and the head."""

    backbone_id: BackboneSource  # hub id, local folder or gs:// folder
    backbone_revision: str = "main"  # a commit hash pins the weights
    num_classes: Annotated[PositiveInt | None, BeforeValidator(_whole)] = None  # checked against the data
    image_size: PositiveInt = 224  # the DINOv3 family's evaluation size
    freeze_backbone: bool = True
    head_type: HeadType = "linear"  # linear probe: the DINOv2 protocol
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    use_ema: bool = True
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    use_multiview: bool = False  # average the logits of three square views along the longer side
    init_from_explora: bool = False  # train on the backbone that phase 4 has adapted

    @field_validator("backbone_id")
    @classmethod
    def _check_backbone(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("model.backbone_id must name a hub id, a folder or a gs:// folder, got an empty text")
        prefix, suffix = "facebook/dinov3-", "-pretrain-lvd1689m"
        name = value.removeprefix(prefix).removesuffix(suffix)
        if value == f"{prefix}{name}{suffix}" and name not in DINOV3_HUB_NAMES:
            longer = [known for known in DINOV3_HUB_NAMES if known.startswith(name)]
            near = (longer or difflib.get_close_matches(name, DINOV3_HUB_NAMES, n=1, cutoff=0.0))[0]
            raise ValueError(f"model.backbone_id {value} does not exist on the hub: use {prefix}{near}{suffix}")
        return value

    @field_validator("num_classes")
    @classmethod
    def _check_classes(cls, value: int | None) -> int | None:
        if value == 1:
            raise ValueError("model.num_classes must be at least 2, got 1")
        return value


class Explora(Section):
    """Phase 4: ExPLoRA; the defaults are the paper's, arXiv 2406.10973, or else DINOv2's, arXiv 2304.07193."""

    steps: PositiveInt = 6250  # optimiser steps
    batch_size: PositiveInt = 1024  # images of an optimiser step
    device_batch_size: PositiveInt = 32  # images at once on each GPU; gradients are accumulated up to batch_size
    lr: NonNegativeFloat = 1e-3  # at 1,024 images; scaled by sqrt(batch_size / 1024)
    weight_decay: NonNegativeFloat = 0.0
    warmup: Fraction = 0.1  # share of the steps; DINOv2: 10 of 100 epochs
    clip: PositiveFloat = 3.0  # norm of all gradients
    rank: PositiveInt = 64  # of the LoRA matrices
    alpha: PositiveFloat = 1.0  # LoRA is scaled by alpha / rank, 1/64 in the authors' code
    unfrozen_blocks: NonNegativeInt = 1  # the last blocks, trained whole
    prototypes: Annotated[int, Field(ge=2)] = 65536
    head_hidden: PositiveInt = 2048
    head_bottleneck: PositiveInt = 256
    freeze_prototypes: Fraction = 0.01  # share of the steps; DINOv2: 1 of 100 epochs
    teacher_momentum: Fraction = 0.994  # rises to 1
    teacher_temperature: tuple[PositiveFloat, PositiveFloat] = (0.04, 0.07)
    student_temperature: PositiveFloat = 0.1
    koleo_weight: NonNegativeFloat = 0.1
    local_crops: NonNegativeInt = 8
    mask_share: Fraction = 0.5  # of the global crops
    mask_ratio: tuple[Fraction, Fraction] = (0.1, 0.5)  # of their patches
    precision: Literal["bfloat16", "float32"] = "bfloat16"  # of a GPU; a CPU computes in float32
    gradient_checkpointing: bool = False  # less memory, a third more time
    checkpoint_root: Place = (
        ""  # folder or gs:// prefix of checkpoints that a stopped run continues from; "" keeps none
    )
    checkpoint_every: PositiveInt = 250  # optimiser steps
    promote: Literal["better", "always"] = "better"  # whether a backbone that probes worse is used all the same
    seed: NonNegativeInt = 0

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
        return self


class Optimizer(Section):
    """AdamW."""

    lr: PositiveFloat = 1e-3  # linear probing of frozen ViT features; 1e-5 to 5e-5 when the backbone is tuned
    weight_decay: NonNegativeFloat = 1e-4


class MixedPrecision(Section):
    """Autocast on the GPU; logits that policies are fitted on are always computed in float32."""

    enabled: bool = True
    dtype: Literal["bfloat16", "float16"] = "bfloat16"  # fp16 gives NaN with DINOv3


class EarlyStopping(Section):
    """When to stop."""

    monitor: Literal["val_select/acc"] = "val_select/acc"
    mode: Literal["max"] = "max"
    patience: PositiveInt = 10


class Training(Section):
    """Phase 1."""

    epochs: PositiveInt = 50
    optimizer: Optimizer = Optimizer()
    mixed_precision: MixedPrecision = MixedPrecision()
    early_stopping: EarlyStopping = EarlyStopping()
    class_weights: Literal["none", "balanced"] = "balanced"  # n / (C n_c), scikit-learn's rule
    views: PositiveInt = 4  # cached views of a TRAIN image: the clean one and views-1 augmented ones
    feature_cache: bool = True  # frozen backbone only: compute features once, not once an epoch
    feature_cache_dir: LocalPath = ""  # keep features between runs, keyed by weights, transform and data; "" in memory
    seed: NonNegativeInt = 0


class Sweep(Section):
    """Phase 2: the rejection threshold."""

    objective: Literal["macro_f1", "coverage_at_risk", "f1_at_coverage", "mcc"] = "macro_f1"
    max_risk: OpenFraction = 0.05  # for coverage_at_risk
    min_coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8  # for f1_at_coverage
    tune_cut: bool = True  # binary tasks: also tune the cut on p(positive), stored as `decision`


class Scrc(Section):
    """Phase 5: temperature and the accept rule with its guarantee."""

    alpha: OpenFraction = 0.05  # bound on the error rate of accepted images
    delta: OpenFraction = 0.1  # probability that the bound does not hold
    procedure: Literal["ltt", "sgr", "grid"] = "ltt"  # what accepts most where risk falls with confidence
    grid: list[OpenFraction] = Field(
        default_factory=list
    )  # for grid: probabilities chosen without VAL_CALIB; [] takes 24 from .1 to .999
    on_infeasible: Literal["fail", "empirical", "abstain"] = "fail"  # zero coverage must not look green
    sets: Literal["none", "pac", "scrc_i"] = "none"  # prediction sets; they take half of VAL_CALIB for themselves
    sets_alpha: OpenFraction = 0.05  # bound on the share of accepted images whose set misses the label; as alpha
    tune_cut: bool = True  # as sweep.tune_cut: the binary score that the bundle emits
    bootstrap: PositiveInt = 1000  # resamples behind the intervals; what is drawn for the rule has no seed to turn


class Export(Section):
    """Phase 6: the bundle."""

    policy: Literal["sweep", "calibrate"]  # which policy ships: two are fitted and none is preferred
    parity_images: PositiveInt = 32  # VAL_CALIB images on which ONNX must repeat the policy's logits
    # Largest |difference| of a logit, relative to max(1, |logit|).
    parity_tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE)] = 1e-3
    publish_uri: Place = ""  # gs:// or local folder that receives the bundle; "" leaves it where it is


class Evaluate(Section):
    """TEST, once."""

    bootstrap: PositiveInt = 1000
    confidence: OpenFraction = 0.95
    seed: NonNegativeInt = 0
    min_slice: PositiveInt = 20  # smaller slices are listed without an interval


class Config(Section):
    """The whole config."""

    data: Data
    split: Split = Split()
    model: Model
    explora: Explora = Explora()
    training: Training = Training()
    sweep: Sweep = Sweep()
    scrc: Scrc = Scrc()
    export: Export
    evaluate: Evaluate = Evaluate()
    hardware: Hardware = Hardware()

    @model_validator(mode="before")
    @classmethod
    def _name_required_keys(cls, values: Any) -> Any:
        """Let an absent section be reported by the keys that it must hold."""
        return {"data": {}, "model": {}, "export": {}, **values} if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _check(self) -> "Config":
        names, count = self.data.class_names, self.model.num_classes
        if names and count is not None and len(names) != count:
            raise ValueError(f"model.num_classes is {count} but data.class_names names {len(names)} classes: {names}")
        if self.model.freeze_backbone is False and self.training.feature_cache_dir:
            raise ValueError("training.feature_cache_dir needs model.freeze_backbone: true")
        return self


SECTIONS = tuple(Config.model_fields)


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML config, apply `key=value` overrides and validate.

    Args:
        path: YAML file.
        overrides: Each `section.key=value`, the value in YAML (`training.optimizer.lr=1e-4`).

    Raises:
        ConfigError: If the file or an override cannot be read, or any value breaks a rule.
    """
    values = read_yaml(_content(Path(path)), f"config {path}")
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} must hold sections ({', '.join(SECTIONS)}), got {shown(values)}")
    for override in overrides:
        _apply(values, override)
    return parse(Config, values)


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise ConfigError(f"cannot read config {path}: it is no regular file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise ConfigError(f"cannot read config {path}: {getattr(error, 'strerror', None) or error}") from error


def _apply(values: JsonDict, override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set takes section.key=value, got {shown(override)}")
    target = values
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: {part} is a value, not a section")
    target[parts[-1]] = read_yaml(text, f"--set {key}: {shown(text)}")
