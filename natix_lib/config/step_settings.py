"""What each step sees of the config.

A step does not see the whole config. `step_settings` gives each step exactly the keys it uses, as plain JSON, so
that KFP's cache key for a step changes only when something that the step reads has changed: another
`model.dropout_rate` repeats neither ingest nor fetch.

The settings of a step are the class below that is named after it. What its keys are filled from is told by their names,
those of sections; where a step reads single keys of a section, its class says which.
"""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from natix_lib.config import (
    Config,
    Dataloader,
    DataSource,
    Evaluate,
    Explora,
    Export,
    Model,
    Recalibrate,
    Scrc,
    Split,
    Sweep,
    Training,
)
from natix_lib.config.hardware import Nodes
from natix_lib.config.section import Section
from natix_lib.contracts import RECALIBRATION, RENEWING, STEPS
from natix_lib.files import JsonDict
from natix_lib.grammar import Place

NodesOrNone = Annotated[
    Nodes | None, BeforeValidator(lambda value: value or None)
]  # {} is one machine: KFP has no null


class StepSettings(Section):
    """What a step reads of the config."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take the sections that the keys are named after."""
        return cls(**{section: getattr(config, section) for section in cls.model_fields})


class IngestSettings(StepSettings):
    """What ingest reads of the config."""

    data: DataSource
    num_classes: PositiveInt | None = None

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take all of the section data but how images are fed; its values are checked already."""
        data = DataSource.model_construct(**{key: getattr(config.data, key) for key in DataSource.model_fields})
        return cls(data=data, num_classes=config.model.num_classes)


class SplitSettings(StepSettings):
    """What split reads of the config."""

    split: Split
    scrc: Scrc | None = Field(
        default=None,
        description="What must be certified; only where split is to stop a run whose VAL_CALIB is too small.",
    )

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take the section split, and what must be certified where it must: else no key of scrc repeats split."""
        if config.export.policy != "calibrate" or config.scrc.on_infeasible != "fail":
            return cls(split=config.split)
        promises = {"alpha", "misses", "false_alarms", "per_class", "per_slice", "slices"}
        kept = {*promises, "delta", "on_infeasible", "sets"}
        return cls(split=config.split, scrc=Scrc(**config.scrc.model_dump(include=kept)))


class FetchSettings(StepSettings):
    """What fetch reads of the config."""

    backbone_id: str
    backbone_revision: str

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take where the backbone is."""
        return cls(backbone_id=config.model.backbone_id, backbone_revision=config.model.backbone_revision)


class AdaptSettings(StepSettings):
    """What adapt reads of the config."""

    num_workers: NonNegativeInt | None = None  # null is left out of a step's settings
    image_size: PositiveInt
    num_gpus: NonNegativeInt
    nodes: NodesOrNone = None
    explora: Explora

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take the section explora, and of others the size of its pictures and who feeds them."""
        return cls(
            num_workers=config.data.dataloader.num_workers,
            image_size=config.model.image_size,
            num_gpus=config.hardware.num_gpus,
            explora=config.explora,
        )


class TrainSettings(StepSettings):
    """What train reads of the config."""

    dataloader: Dataloader
    model: Model
    training: Training
    num_gpus: NonNegativeInt = 1
    nodes: NodesOrNone = None

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take how images are fed, and what is trained."""
        return cls(
            dataloader=config.data.dataloader,
            model=config.model,
            training=config.training,
            num_gpus=config.hardware.num_gpus,
        )


class SweepSettings(StepSettings):
    """What sweep reads of the config."""

    sweep: Sweep


class CalibrateSettings(StepSettings):
    """What calibrate reads of the config."""

    scrc: Scrc


class ExportSettings(StepSettings):
    """What export reads of the config."""

    export: Export


class EvaluateSettings(StepSettings):
    """What evaluate reads of the config."""

    evaluate: Evaluate


class ObtainSettings(StepSettings):
    """What obtain reads of the config."""

    bundle: Place

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take where the bundle is."""
        return cls(bundle=config.recalibrate.bundle)


class DivideSettings(StepSettings):
    """What divide reads of the config."""

    split: Split
    recalibrate: Recalibrate
    scrc: Scrc | None = Field(
        default=None,
        description="What must be certified; only where divide is to stop a run whose VAL_CALIB is too small.",
    )

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take the section split and the new ratios, and what must be certified where it must."""
        ratios = Recalibrate(ratios=config.recalibrate.ratios)
        scrc = config.scrc if config.scrc.on_infeasible == "fail" else None
        return cls(split=config.split, recalibrate=ratios, scrc=scrc)


class ScoreSettings(StepSettings):
    """What score reads of the config: nothing."""


class RenewSettings(StepSettings):
    """What renew reads of the config."""

    publish_uri: Place = ""

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take where the bundle is published."""
        return cls(publish_uri=config.export.publish_uri)


SETTINGS: dict[str, type[StepSettings]] = {
    step: globals()[f"{step.capitalize()}Settings"] for step in (*STEPS, *RENEWING)
}


def step_settings(config: Config) -> dict[str, JsonDict]:
    """The settings of each step, as JSON: exactly the keys that the step uses."""
    return {step: _values(step, config) for step in STEPS}


def recalibration_settings(config: Config) -> dict[str, JsonDict]:
    """The settings of each step of `contracts.RECALIBRATION`, as JSON."""
    return {step: _values(step, config) for step in RECALIBRATION}


def _values(step: str, config: Config) -> JsonDict:
    return SETTINGS[step].of(config).model_dump(mode="json", exclude_none=True)
