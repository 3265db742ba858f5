"""The form of a run: what people change is a parameter of its own, a number or a text; all else stays in its section.

A parameter of the form is the only place of its key: the sections beside it leave the key out. So there is no question
which of two defaults wins, and the form shows the values that a run will have. A section that gives such a key all the
same must give the value of the parameter; another one is an error of one line that names both. Two other rules were
tried on paper. "The parameter wins" ignores in silence who sends `scrc={"alpha": 0.02}`, as runs did before there were
such parameters. "The section wins" ignores who types alpha into the form of a run that was cloned from such a one.

The parameter `seed` is that of the whole run: of each section that names none of its own. Its default is the seed that
most sections of the config have; a section with another one keeps it and shows it. It is a text, as `num_gpus` is: a
frontend of KFP before 2025 takes a default of 0, as well as an empty text, for a missing one and disables Start.

`natix run` has no form: its config has been read and checked when the pipeline is made. `make submit` makes the form of
the config with its overrides, so `SET=scrc.alpha=0.02` arrives as `alpha`. `kfp run submit alpha=0.02`, the UI's form
and a PipelineJob of Vertex change a parameter and leave all others as they were compiled.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

from natix_lib.config.explain import entries
from natix_lib.config.section import shown
from natix_lib.config.whole import SECTIONS, Config
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict

FORM = {  # the parameter to the keys that it sets
    "data_root": ("data.data_root",),
    "backbone_id": ("model.backbone_id",),
    "policy": ("export.policy",),
    "alpha": ("scrc.alpha",),
    "delta": ("scrc.delta",),
    "epochs": ("training.epochs",),
    "lr": ("training.optimizer.lr",),
    "num_gpus": ("hardware.num_gpus",),
    "seed": ("split.seed", "explora.seed", "training.seed", "evaluate.seed"),
}
COMPILED = "data.shards"  # shapes the graph, so no run of it can change it
FORM_SECTIONS = tuple(name for name in SECTIONS if name != "hardware")  # what is asked of a cluster is compiled in
TEXTS = ("num_gpus", "seed")  # numbers that may be 0
SEED = "Seed of the run: of {} where the section does not name a seed of its own."
AS_A_TEXT = 'Sent as a text: "{}".'


def form(config: Config) -> JsonDict:
    """The parameters of a run with a config's values: those of `FORM`, then the sections without their keys.

    Returns:
        Each parameter as JSON: a section as a mapping, those of `TEXTS` as a text; to a number of GPUs KFP's driver
        would give no GPU.
    """
    values = config.model_dump(mode="json", exclude_none=True)  # KFP knows no null
    parameters: JsonDict = {}
    for name, keys in FORM.items():
        holders = [(_holder(values, key), key.rpartition(".")[2]) for key in keys]
        parameters[name] = Counter(holder[key] for holder, key in holders).most_common(1)[0][0]
        for holder, key in holders:
            if holder[key] == parameters[name]:
                del holder[key]
    del values["data"]["shards"]
    parameters |= {name: str(parameters[name]) for name in TEXTS}
    return parameters | {name: values[name] for name in FORM_SECTIONS}


def sections(parameters: Mapping[str, Any]) -> JsonDict:
    """The sections of a config out of the parameters of a run; nothing is checked but that they do not contradict.

    Raises:
        ConfigError: If a section gives a key of `FORM` another value than its parameter, or what is compiled in.
    """
    values = {name: copy.deepcopy(parameters[name]) for name in FORM_SECTIONS}
    clashes = []
    for name, keys in FORM.items():
        for path in keys:
            holder, key = _holder(values, path), path.rpartition(".")[2]
            given = holder.setdefault(key, parameters[name])
            if len(keys) == 1 and given != parameters[name]:
                clashes.append(f"the parameter {name} is {shown(parameters[name])} but {path} is {shown(given)}")
    if "shards" in _holder(values, COMPILED):
        raise ConfigError(
            f"config: {COMPILED} is compiled into the pipeline: leave it out, or compile with another one"
        )
    if clashes:
        raise ConfigError(f"config: {'; '.join(clashes)}: change the parameter and leave the key out of its section")
    return values


def descriptions() -> dict[str, str]:
    """What each parameter of the form means, in one line."""
    known = {entry.path: entry for entry in entries()}
    texts = {}
    for name, keys in FORM.items():
        entry = known[keys[0]]
        kind = f"{entry.allowed[:1].upper()}{entry.allowed[1:]}."
        sent = f" {AS_A_TEXT.format(1)}" if name in TEXTS else ""
        meaning = SEED.format(", ".join(key.partition(".")[0] for key in keys)) if len(keys) > 1 else entry.meaning
        texts[name] = f"{meaning} {kind}{sent} Config: {', '.join(keys)}."
    for name in FORM_SECTIONS:
        apart = [parameter for parameter, keys in FORM.items() if any(key.startswith(f"{name}.") for key in keys)]
        texts[name] = known[name].meaning + (f" Given apart: {', '.join(apart)}." if apart else "")
    return texts


def _holder(values: JsonDict, key: str) -> JsonDict:
    """The section that holds a key; an empty one where a person has sent something else, which parsing then refuses."""
    for part in key.split(".")[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            return {}
        values = inner
    return values
