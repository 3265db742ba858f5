"""The whole config: its sections, and the rules that join keys of several."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from natix_lib.config.data import Data
from natix_lib.config.delivery import Evaluate, Export
from natix_lib.config.explora import Explora
from natix_lib.config.fine_tuning import FineTune
from natix_lib.config.hardware import Hardware
from natix_lib.config.model import Model
from natix_lib.config.policies import Scrc, Sweep
from natix_lib.config.recalibration import Recalibrate
from natix_lib.config.section import Section
from natix_lib.config.split import Split
from natix_lib.config.training import Grid, Training
from natix_lib.grammar import PATCHES


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
    recalibrate: Recalibrate = Recalibrate()
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
        if self.training.feature_cache is False and self.training.feature_cache_dir:
            raise ValueError("training.feature_cache_dir needs training.feature_cache: true")
        if self.model.freeze_backbone and self.training.fine_tune != FineTune():
            raise ValueError("training.fine_tune needs model.freeze_backbone: false, a frozen backbone is not tuned")
        if self.training.mixup and self.model.freeze_backbone and self.training.feature_cache:
            raise ValueError(
                "training.mixup blends pixels: it needs model.freeze_backbone: false or training.feature_cache: false"
            )
        if self.training.grid != Grid() and not (self.model.freeze_backbone and self.training.feature_cache):
            raise ValueError(
                "training.grid tries heads on cached features: it needs model.freeze_backbone: true and "
                "training.feature_cache: true"
            )
        if self.model.pooling == ["attentive"] and self.model.freeze_backbone and self.training.feature_cache:
            raise ValueError(
                "model.pooling: [attentive] learns on pixels: it needs training.feature_cache: false or "
                "model.freeze_backbone: false"
            )
        if self.training.grid.pooling and self.model.backbone_id == PATCHES:
            raise ValueError(
                f"training.grid.pooling must be left out with model.backbone_id: {PATCHES}, which has its own pooling"
            )
        if self.data.unlabelled == "adapt" and not self.model.init_from_explora:
            raise ValueError(
                "data.unlabelled: adapt needs model.init_from_explora: true, as no other step reads images without a "
                "label; drop leaves them out"
            )
        return self


SECTIONS = tuple(Config.model_fields)
