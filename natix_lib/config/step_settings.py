"""What each step sees of the config.

A step does not see the whole config. `step_settings` gives each step exactly the keys it uses, as plain JSON, so
that KFP's cache key for a step changes only when something that the step reads has changed: another
`model.dropout_rate` repeats neither ingest nor fetch.
"""

from typing import Annotated

from pydantic import BeforeValidator, NonNegativeInt, PositiveInt

from natix_lib.config import (
    Config,
    Dataloader,
    DataSource,
    Evaluate,
    Explora,
    Export,
    Model,
    Scrc,
    Split,
    Sweep,
    Training,
)
from natix_lib.config.hardware import Nodes
from natix_lib.config.section import Section
from natix_lib.files import JsonDict

NodesOrNone = Annotated[
    Nodes | None, BeforeValidator(lambda value: value or None)
]  # {} is one machine: KFP has no null


class IngestSettings(Section):
    """What ingest reads of the config."""

    data: DataSource
    num_classes: PositiveInt | None = None


class SplitSettings(Section):
    """What split reads of the config."""

    split: Split


class FetchSettings(Section):
    """What fetch reads of the config."""

    backbone_id: str
    backbone_revision: str


class AdaptSettings(Section):
    """What adapt reads of the config."""

    num_workers: NonNegativeInt
    image_size: PositiveInt
    num_gpus: NonNegativeInt
    nodes: NodesOrNone = None
    explora: Explora


class TrainSettings(Section):
    """What train reads of the config."""

    dataloader: Dataloader
    model: Model
    training: Training
    num_gpus: NonNegativeInt = 1
    nodes: NodesOrNone = None


class SweepSettings(Section):
    """What sweep reads of the config."""

    sweep: Sweep


class CalibrateSettings(Section):
    """What calibrate reads of the config."""

    scrc: Scrc


class ExportSettings(Section):
    """What export reads of the config."""

    export: Export


class EvaluateSettings(Section):
    """What evaluate reads of the config."""

    evaluate: Evaluate


def step_settings(config: Config) -> dict[str, JsonDict]:
    """The settings of each step, as JSON: exactly the keys that the step uses."""
    data = DataSource(**config.data.model_dump(exclude={"dataloader"}))
    settings: dict[str, Section] = {
        "ingest": IngestSettings(data=data, num_classes=config.model.num_classes),
        "split": SplitSettings(split=config.split),
        "fetch": FetchSettings(backbone_id=config.model.backbone_id, backbone_revision=config.model.backbone_revision),
        "adapt": AdaptSettings(
            num_workers=config.data.dataloader.num_workers,
            image_size=config.model.image_size,
            num_gpus=config.hardware.num_gpus,
            explora=config.explora,
        ),
        "train": TrainSettings(
            dataloader=config.data.dataloader,
            model=config.model,
            training=config.training,
            num_gpus=config.hardware.num_gpus,
        ),
        "sweep": SweepSettings(sweep=config.sweep),
        "calibrate": CalibrateSettings(scrc=config.scrc),
        "export": ExportSettings(export=config.export),
        "evaluate": EvaluateSettings(evaluate=config.evaluate),
    }
    return {step: value.model_dump(mode="json", exclude_none=True) for step, value in settings.items()}
