"""The pipeline, readable as the picture in the README."""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Model

from components.adapt import adapt as adapt_op
from components.calibrate import calibrate as calibrate_op
from components.check import check as check_op
from components.evaluate import evaluate as evaluate_op
from components.export import export as export_op
from components.fetch import fetch as fetch_op
from components.ingest import ingest as ingest_op
from components.split import split as split_op
from components.sweep import sweep as sweep_op
from components.train import train as train_op
from natix_lib.config import Config
from natix_lib.contracts import STEPS
from pipelines.targets import Target

TYPES: dict[str, Any] = {
    "dataset": Dataset,
    "splits": Artifact,
    "backbone": Model,
    "adapted_backbone": Model,
    "adaptation_curve": Artifact,
    "adaptation_report": HTML,
    "classifier": Model,
    "training_curve": Artifact,
    "val_calib_logits": Artifact,
    "val_calib_labels": Artifact,
    "thresholds": Artifact,
    "sweep_curve": Artifact,
    "sweep_report": HTML,
    "scrcparams": Artifact,
    "scrc_curve": Artifact,
    "calibration_report": HTML,
    "bundle": Model,
    "evaluation": Artifact,
    "report": HTML,
}


def outputs_of(with_explora: bool) -> Any:
    """The artifacts of a run, by the names of `contracts.ARTIFACTS`, as the type a pipeline returns."""
    left_out = () if with_explora else STEPS["adapt"].outputs
    return NamedTuple("Outputs", [(name, kind) for name, kind in TYPES.items() if name not in left_out])


def pipeline_name(with_explora: bool) -> str:
    """The name of a variant, which is also the stem of its file."""
    return "training-explora" if with_explora else "training"


def build(target: Target, config: Config) -> Any:
    """The pipeline for a target, with the config's values as the defaults of its parameters.

    One parameter for each config section, so that a run can replace a section; the versions change the cache keys
    of what is read from outside; `num_gpus` is a text. What is no parameter, nodes, secrets, retries and the like, is
    the config's section `hardware` when the pipeline is compiled.
    """
    default = config.model_dump(mode="json", exclude_none=True)  # KFP knows no null
    with_explora = config.model.init_from_explora
    nodes, token_secret = target.nodes(config.hardware), target.token_secret(config.hardware)
    Outputs = outputs_of(with_explora)

    @dsl.pipeline(
        name=f"natix-{pipeline_name(with_explora)}",
        description="Labelled street images to a roadwork classifier that can be trusted.",
    )
    def training(
        data: dict = default["data"],
        split: dict = default["split"],
        model: dict = default["model"],
        explora: dict = default["explora"],
        training: dict = default["training"],
        sweep: dict = default["sweep"],
        scrc: dict = default["scrc"],
        export: dict = default["export"],
        evaluate: dict = default["evaluate"],
        data_version: str = "",
        backbone_version: str = "",
        num_gpus: str = str(config.hardware.num_gpus),
    ) -> Outputs:
        def place(step: str, task: dsl.PipelineTask) -> Any:
            return target.place(task, step, config.hardware, num_gpus).outputs

        checked = place(
            "check",
            check_op(
                data=data,
                split=split,
                model=model,
                explora=explora,
                training=training,
                sweep=sweep,
                scrc=scrc,
                export=export,
                evaluate=evaluate,
                with_explora=with_explora,
            ),
        )
        images = place("ingest", ingest_op(settings=checked["ingest"], data_version=data_version))
        parts = place("split", split_op(settings=checked["split"], dataset=images["dataset"]))
        base = place(
            "fetch",
            fetch_op(settings=checked["fetch"], backbone_version=backbone_version, token_secret=token_secret),
        )
        adapted: dict[str, Any] = {}
        if with_explora:
            adapted = place(
                "adapt",
                adapt_op(
                    settings=checked["adapt"],
                    num_gpus=num_gpus,
                    nodes=nodes,
                    dataset=images["dataset"],
                    splits=parts["splits"],
                    backbone=base["backbone"],
                ),
            )
        trained = place(
            "train",
            train_op(
                settings=checked["train"],
                num_gpus=num_gpus,
                nodes=nodes,
                dataset=images["dataset"],
                splits=parts["splits"],
                backbone=adapted["adapted_backbone"] if with_explora else base["backbone"],
            ),
        )
        logits = {name: trained[name] for name in ("val_calib_logits", "val_calib_labels")}
        swept = place("sweep", sweep_op(settings=checked["sweep"], **logits))
        calibrated = place("calibrate", calibrate_op(settings=checked["calibrate"], **logits))
        exported = place(
            "export",
            export_op(
                settings=checked["export"],
                dataset=images["dataset"],
                splits=parts["splits"],
                classifier=trained["classifier"],
                val_calib_logits=trained["val_calib_logits"],
                thresholds=swept["thresholds"],
                scrcparams=calibrated["scrcparams"],
            ),
        )
        evaluated = place(
            "evaluate",
            evaluate_op(
                settings=checked["evaluate"],
                dataset=images["dataset"],
                splits=parts["splits"],
                bundle=exported["bundle"],
            ),
        )
        everything = {**images, **parts, **base, **adapted, **trained, **swept, **calibrated, **exported, **evaluated}
        return Outputs(**{name: everything[name] for name in Outputs._fields})

    return training
