"""The pipeline that renews a bundle's policy: the steps of `contracts.RECALIBRATION`, each given what the table names.

It is for a schedule: labelled images of a month lie where `data_root` says, and what lies there is told anew in every
run, as in `training.py`, so a recurring run takes the images of its month and none of its steps from a cache when they
have changed. All steps run on CPUs. Ingest is not sharded: an audit of a month is thousands of images, not millions.

A second table beside that of training was chosen over steps with switches: a graph in which half of the tasks are
skipped tells nobody what it does, and KFP's conditions would make every output of it optional.
"""

import importlib
from typing import Any, NamedTuple

from kfp import dsl

from natix_components.check_recalibration import check_recalibration as check_op
from natix_lib.config import Config
from natix_lib.config.form import recalibration_descriptions, recalibration_form, recalibration_rest
from natix_lib.config.hardware import CHECK
from natix_lib.contracts import ARTIFACTS, RECALIBRATION, RECALIBRATION_FINGERPRINTS, TASKS
from natix_lib.steps.check_recalibration import prepared
from natix_pipelines.targets import LOCAL, Target
from natix_pipelines.training import signature

DESCRIPTION = "A bundle and new labelled images to a bundle with the same model and a policy for these images."
NAME, FILE_STEM = "natix-recalibration", "recalibration"


def outputs() -> Any:
    """The artifacts of a run, by the names of `contracts.ARTIFACTS`, as the type a pipeline returns."""
    names = [artifact for step in RECALIBRATION for artifact in TASKS[step].outputs]
    return NamedTuple("Outputs", [(name, getattr(dsl, ARTIFACTS[name].type)) for name in names])


def build(target: Target, config: Config) -> Any:
    """The pipeline for a target, with the config's values as the defaults of its parameters.

    Raises:
        NatixError: For the local target, if the bundle is not there.
    """
    compiled = {} if target.name == LOCAL else recalibration_form(config)
    parameters = compiled or dict.fromkeys(RECALIBRATION_FINGERPRINTS, "")
    Outputs = outputs()
    known: Any = None if compiled else prepared(config)[0]

    def recalibration(*given: Any) -> Any:
        values = dict(zip(parameters, given, strict=True))

        def place(step: str, task: dsl.PipelineTask) -> Any:
            return target.place(task, step, config.hardware, "0").outputs

        settings, told = known, values
        if compiled:
            own = {"compiled": compiled, "rest": recalibration_rest(config), "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
            settings = told = place(CHECK, check_op(**values, **own))
        made: dict[str, Any] = {}
        for name in RECALIBRATION:
            inputs = {artifact: made[artifact] for artifact in TASKS[name].inputs}
            if fingerprint := TASKS[name].fingerprint:
                inputs[fingerprint] = told[fingerprint]
            component = getattr(importlib.import_module(f"natix_components.{name}"), name)
            made |= place(name, component(settings=settings[name], **inputs))
        return Outputs(**{name: made[name] for name in Outputs._fields})

    texts = recalibration_descriptions() if compiled else dict.fromkeys(parameters, "What a source holds.")
    described = "\n    ".join([f"{DESCRIPTION}\n\nArgs:", *(f"{name}: {texts[name]}" for name in parameters)])
    recalibration.__doc__ = described
    recalibration.__signature__ = signature(parameters, Outputs)  # type: ignore[attr-defined]
    title = "natix: renew the policy of a bundle"
    return dsl.pipeline(name=NAME, description=DESCRIPTION, display_name=title)(recalibration)
