"""The pipeline: the steps of `contracts.STEPS` in their order, each given what the table names.

The table is the picture: a task gets the artifacts that its step's row takes and no others, so no edge of the graph is
written twice. Here stands what is not in the table: the check before all, the parameters of a run, and the variant
with ExPLoRA, in which train takes the adapted backbone.
"""

import importlib
from typing import Any, NamedTuple

from kfp import dsl

from natix_components.check import check as check_op
from natix_lib.config import Config
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_pipelines.targets import Target


def steps_of(with_explora: bool) -> list[str]:
    """The steps of a variant, in order."""
    return [name for name in STEPS if with_explora or name != "adapt"]


def outputs_of(with_explora: bool) -> Any:
    """The artifacts of a run, by the names of `contracts.ARTIFACTS`, as the type a pipeline returns."""
    names = [artifact for step in steps_of(with_explora) for artifact in STEPS[step].outputs]
    return NamedTuple("Outputs", [(name, getattr(dsl, ARTIFACTS[name].type)) for name in names])


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
        data: dict[str, Any] = default["data"],
        split: dict[str, Any] = default["split"],
        model: dict[str, Any] = default["model"],
        explora: dict[str, Any] = default["explora"],
        training: dict[str, Any] = default["training"],
        sweep: dict[str, Any] = default["sweep"],
        scrc: dict[str, Any] = default["scrc"],
        export: dict[str, Any] = default["export"],
        evaluate: dict[str, Any] = default["evaluate"],
        data_version: str = "",
        backbone_version: str = "",
        num_gpus: str = str(config.hardware.num_gpus),
    ) -> Outputs:  # type: ignore[valid-type]  # a type that the table of steps makes
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
        options: dict[str, dict[str, Any]] = {
            "ingest": {"data_version": data_version},
            "fetch": {"backbone_version": backbone_version, "token_secret": token_secret},
            "adapt": {"num_gpus": num_gpus, "nodes": nodes},
            "train": {"num_gpus": num_gpus, "nodes": nodes},
        }
        made: dict[str, Any] = {}
        for name in steps_of(with_explora):
            inputs = {artifact: made[artifact] for artifact in STEPS[name].inputs}
            if name == "train" and with_explora:
                inputs["backbone"] = made["adapted_backbone"]
            component = getattr(importlib.import_module(f"natix_components.{name}"), name)
            made |= place(name, component(settings=checked[name], **inputs, **options.get(name, {})))
        return Outputs(**{name: made[name] for name in Outputs._fields})  # type: ignore[no-any-return]

    return training
