"""The config section `model`: the backbone and the head."""

import difflib
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, PositiveInt, field_validator, model_validator

from natix_lib.config.key import default
from natix_lib.config.section import Section
from natix_lib.documents import CLS_AND_MEAN, HeadType, Poolings
from natix_lib.grammar import PATCHES, BackboneSource

DINOV3_HUB_NAMES = ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")
PATCHES_LEAST = 16  # pixels a side: a few positions in each quarter


def _whole(value: object) -> object:
    """`None` spelt as KFP can pass it: optional pipeline parameters cannot default to null."""
    return None if value in ("", 0) else value


class Model(Section):
    """The backbone and the head."""

    backbone_id: BackboneSource = Field(
        description="Backbone: an id on the Hugging Face hub, a local folder, a gs:// or s3:// folder, or patches, "
        "which train learns from the images of TRAIN without a download; 64 is its image_size."
    )
    backbone_revision: str = default(
        "main",
        "Branch, tag or commit of the backbone on the hub; a commit pins the weights.",
        source="library: the hub's default branch",
    )
    num_classes: Annotated[PositiveInt | None, BeforeValidator(_whole)] = default(
        None,
        "Number of classes, which the data is checked against; without it the data says how many there are.",
        unit="classes",
        source="choice: what is there decides",
    )
    image_size: PositiveInt = default(
        224,
        "Side of the square that the model sees, a multiple of the backbone's patch.",
        unit="pixels",
        source="paper: the evaluation size of DINOv2, arXiv 2304.07193, and of DINOv3",
    )
    freeze_backbone: bool = default(
        True,
        "Whether the backbone keeps its weights and only the head is trained.",
        source="paper: the linear probe of DINOv2, arXiv 2304.07193",
    )
    head_type: HeadType = default(
        "linear",
        "Head on the backbone's features; mlp has one hidden layer.",
        source="paper: the linear probe of DINOv2, arXiv 2304.07193",
    )
    pooling: Poolings = default(
        list(CLS_AND_MEAN),
        "How a ViT's tokens become features, side by side: the CLS token, and mean, maximum and standard deviation of "
        "the patch tokens; or attentive alone, a learnt weighing of CLS and patches. patches has its own.",
        source="paper: the linear probe of DINOv2, arXiv 2304.07193, with CLS and mean",
    )
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = default(
        0.0,
        "Share of the features that dropout hides from the head while it trains.",
        unit="share of features",
        source="paper: the linear probe of DINOv2, arXiv 2304.07193, has none",
    )
    use_ema: bool = default(
        True,
        "Whether the weights that are kept are a moving average over the training.",
        source="choice: an average depends less on the last batches",
    )
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = default(
        0.99,
        "Share of the moving average that stays at each optimiser step.",
        unit="share of the average",
        source="choice: an average over some 100 steps, a few epochs of a small data set",
    )
    use_multiview: bool = default(
        False,
        "Whether the logits of three square views along the longer side are averaged, instead of one view's.",
        source="choice: three views cost three times the computing",
    )
    init_from_explora: bool = default(
        False,
        "Whether adapt first adapts the backbone to the images of TRAIN, by the section explora.",
        source="choice: hours on a GPU, to be asked for",
    )

    @field_validator("backbone_id")
    @classmethod
    def _check_backbone(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("model.backbone_id must name a hub id, or a folder here or in a bucket, got an empty text")
        prefix, suffix = "facebook/dinov3-", "-pretrain-lvd1689m"
        name = value.removeprefix(prefix).removesuffix(suffix)
        if value == f"{prefix}{name}{suffix}" and name not in DINOV3_HUB_NAMES:
            longer = [known for known in DINOV3_HUB_NAMES if known.startswith(name)]
            near = (longer or difflib.get_close_matches(name, DINOV3_HUB_NAMES, n=1, cutoff=0.0))[0]
            raise ValueError(f"model.backbone_id {value} does not exist on the hub: use {prefix}{near}{suffix}")
        return value

    @model_validator(mode="after")
    def _check_patches(self) -> Self:
        if self.backbone_id != PATCHES:
            return self
        if not self.freeze_backbone:
            raise ValueError(f"model.freeze_backbone must be true with model.backbone_id: {PATCHES}")
        if self.init_from_explora:
            raise ValueError(
                f"model.init_from_explora must be false with model.backbone_id: {PATCHES}: adapt needs a ViT"
            )
        if tuple(self.pooling) != CLS_AND_MEAN:
            raise ValueError(
                f"model.pooling must be left out with model.backbone_id: {PATCHES}, which has its own, "
                f"got {self.pooling}"
            )
        if self.image_size < PATCHES_LEAST:
            raise ValueError(
                f"model.image_size must be at least {PATCHES_LEAST} with model.backbone_id: {PATCHES}, "
                f"got {self.image_size}"
            )
        return self

    @field_validator("num_classes")
    @classmethod
    def _check_classes(cls, value: int | None) -> int | None:
        if value == 1:
            raise ValueError("model.num_classes must be at least 2, got 1")
        return value
