"""The pipeline: the steps of `contracts.STEPS` in their order, each given what the table names.

The table is the picture: a task gets the artifacts that its step's row takes and no others, so no edge of the graph is
written twice. Here stands what is not in the table: the check before all, the parameters of a run, and the variant
with ExPLoRA, in which train takes the adapted backbone.

With `data.shards` above 1 the tasks `shard`, in a loop over the shards, and `gather` stand for ingest. The number
shapes the graph, so it is read when the pipeline is made. A list of shards as a parameter of the run was rejected:
without shards the graph is another one, so a form could offer only half of the choice. With one shard nothing of this
is in the pipeline: a loop of one costs two drivers and a step more on the way to split, most of a minute.

check is given the compiled parameters and what this run has for them, and gives each step its settings and, of what it
reads outside the run, a fingerprint. It is never cached: its caching option says so and, where a client turns caching
on for all tasks (`enable_caching=True`), its inputs, of which the run's id is one. What it gives is the same while
nothing has changed, so all that follows is cached.

Both variants, on all targets, have one name. KFP looks a result up by the pipeline's name too, so a run with ExPLoRA
goes on with what one without it has ingested, fetched and split; their titles and files tell them apart.

The parameters of a run, their types, texts and defaults are those of `config.form`: the function's signature and
docstring, from which KFP makes the form, are made of them, because written out they would say each key of the config
once more. `natix run` has a checked config in its hands when it makes the pipeline, so the local target has neither a
form nor a check: its steps get their settings as constants, which are in the key of KFP's local cache as well, and the
fingerprints are its parameters.
"""

import importlib
import inspect
from typing import Any, NamedTuple

from kfp import dsl

from natix_components.check import check as check_op
from natix_lib.config import Config
from natix_lib.config.form import descriptions, form
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import ARTIFACTS, FINGERPRINTS, SHARDED, STEPS, TASKS, step_of
from natix_lib.data.parts import Shard
from natix_pipelines.targets import LOCAL, Target

DESCRIPTION = "Labelled street images to a roadwork classifier that can be trusted."
NAME = "natix-training"


def steps_of(with_explora: bool, shards: int = 1) -> list[str]:
    """The steps of a variant, in order; with several shards those that stand for ingest."""
    steps = [name for name in STEPS if with_explora or name != "adapt"]
    return steps if shards == 1 else [*SHARDED, *steps[1:]]


def outputs_of(with_explora: bool, shards: int = 1) -> Any:
    """The artifacts of a run, by the names of `contracts.ARTIFACTS`, as the type a pipeline returns.

    What each shard gives is no artifact of the run: it would be a list.
    """
    steps = [step for step in steps_of(with_explora, shards) if step != "shard"]
    names = [artifact for step in steps for artifact in TASKS[step].outputs]
    return NamedTuple("Outputs", [(name, getattr(dsl, ARTIFACTS[name].type)) for name in names])


def file_stem(with_explora: bool) -> str:
    """The stem of a variant's file."""
    return "training-explora" if with_explora else "training"


def build(target: Target, config: Config) -> Any:
    """The pipeline for a target, with the config's values as the defaults of its parameters.

    What is no parameter, nodes, secrets, retries and the like, is the config's section `hardware` when the pipeline is
    compiled.
    """
    with_explora, shards = config.model.init_from_explora, config.data.shards
    nodes, token_secret = target.nodes(config.hardware), target.token_secret(config.hardware)
    compiled = {} if target.name == LOCAL else form(config)
    parameters = compiled or dict.fromkeys(FINGERPRINTS, "")
    Outputs = outputs_of(with_explora, shards)

    def training(*given: Any) -> Any:
        values = dict(zip(parameters, given, strict=True))
        num_gpus = values.get("num_gpus", str(config.hardware.num_gpus))

        def place(step: str, task: dsl.PipelineTask) -> Any:
            return target.place(task, step, config.hardware, num_gpus).outputs

        settings: Any = step_settings(config)
        told: Any = values
        if compiled:
            own = {"compiled": compiled, "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "token_secret": token_secret}
            settings = told = place("check", check_op(**values, **own))
        gpus = {"num_gpus": num_gpus, "nodes": nodes}
        options: dict[str, dict[str, Any]] = {"fetch": {"token_secret": token_secret}, "adapt": gpus, "train": gpus}
        made: dict[str, Any] = {}
        for name in steps_of(with_explora, shards):
            inputs = {artifact: made[artifact] for artifact in TASKS[name].inputs}
            if name == "train" and with_explora:
                inputs["backbone"] = made["adapted_backbone"]
            if name == "split" and shards > 1:
                inputs["shards"] = inputs.pop("images")
            if fingerprint := TASKS[name].fingerprint:
                inputs[fingerprint] = told[fingerprint]
            read = settings[step_of(name)]
            component = getattr(importlib.import_module(f"natix_components.{name}"), name)
            if name == "shard":
                with dsl.ParallelFor(Shard.all(shards), name="Ingest in shards") as shard:
                    outputs = place(name, component(settings=read, shard=shard, **inputs))
                made |= {artifact: dsl.Collected(outputs[artifact]) for artifact in TASKS[name].outputs}
            else:
                made |= place(name, component(settings=read, **inputs, **options.get(name, {})))
        return Outputs(**{name: made[name] for name in Outputs._fields})

    texts = descriptions() if compiled else dict.fromkeys(FINGERPRINTS, "What a source holds.")
    training.__doc__ = "\n    ".join([f"{DESCRIPTION}\n\nArgs:", *(f"{name}: {texts[name]}" for name in parameters)])
    training.__signature__ = signature(parameters, Outputs)  # type: ignore[attr-defined]
    title = f"natix: {'adapt the backbone, then ' if with_explora else ''}train, certify and evaluate"
    return dsl.pipeline(name=NAME, description=DESCRIPTION, display_name=title)(training)


def signature(parameters: dict[str, Any], outputs: Any) -> inspect.Signature:
    """A function's parameters with their defaults, each of the type of its default."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(
                name, kind, default=value, annotation=dict[str, Any] if isinstance(value, dict) else type(value)
            )
            for name, value in parameters.items()
        ],
        return_annotation=outputs,
    )
