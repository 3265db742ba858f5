"""The form of a run: what people change is a parameter of its own, a number or a text; all else stays in its section.

KFP replaces the default of a section whole by what is sent for it. So `check` lays what was sent over what was
compiled: a key that a section leaves out keeps its compiled value, in sections within a section too. A mapping that is
one value, such as `data.class_aliases`, is replaced whole, because a run could take no name out of it otherwise; who
sends one key of it sends the others too, as `make submit` does for `--set data.class_aliases.RW=Roadwork`. So no key
goes back to the library's default by being left out: name it with that value.

A parameter of the form is the only place of its key: the sections beside it leave the key out, and the form shows the
values that a run will have. A section may give such a key all the same, as runs did before there were such parameters.
It is taken where the parameter has its compiled value still; where both differ from that and from each other it is an
error of one line that names both. What a run has that was compiled otherwise, check says in its log, key by key. Two
other rules were tried on paper. "The parameter wins" ignores in silence who sends `scrc={"alpha": 0.02}`. "The section
wins" ignores who types alpha into the form of a run that was cloned from such a one.

The parameter `seed` is that of the whole run: of each section that names none of its own. Its default is the seed that
most sections of the config have; a section with another one keeps it and shows it. It is a text, as `num_gpus` is: a
frontend of KFP before 2025 takes a default of 0, as well as an empty text, for a missing one and disables Start.

`natix run` has no form: its config has been read and checked when the pipeline is made. `make submit`, KFP's own
command, the UI's form and a PipelineJob of Vertex change a parameter and leave all others as they were compiled.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from natix_lib.config.explain import entries, section_of
from natix_lib.config.section import Section, shown
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
FORM_SECTIONS = tuple(name for name in SECTIONS if name not in ("recalibrate", "hardware"))  # the latter is compiled in
RECALIBRATION_FORM = {  # of the pipeline that renews a bundle's policy
    "data_root": ("data.data_root",),
    "bundle": ("recalibrate.bundle",),
    "alpha": ("scrc.alpha",),
    "delta": ("scrc.delta",),
    "seed": ("split.seed", "evaluate.seed"),
}
RECALIBRATION_SECTIONS = ("data", "split", "scrc", "export", "evaluate", "recalibrate")  # that its steps read
TEXTS = ("num_gpus", "seed")  # numbers that may be 0
SEED = "Seed of the run: of {} where the section does not name a seed of its own."
AS_A_TEXT = 'Sent as a text: "{}".'


def form(config: Config) -> JsonDict:
    """The parameters of a run with a config's values: those of `FORM`, then the sections without their keys.

    Returns:
        Each parameter as JSON: a section as a mapping, those of `TEXTS` as a text. KFP's driver reads the number of
        GPUs as one, and from a parameter that is declared a number it would read none, without an error.
    """
    return _parameters(config, FORM, FORM_SECTIONS)


def recalibration_form(config: Config) -> JsonDict:
    """The parameters of a recalibration with a config's values, as `form` has those of a training."""
    return _parameters(config, RECALIBRATION_FORM, RECALIBRATION_SECTIONS)


def recalibration_rest(config: Config) -> JsonDict:
    """The sections of a config that are no parameters of a recalibration, whose steps read nothing there."""
    values = config.model_dump(mode="json", exclude_none=True)
    return {name: values[name] for name in FORM_SECTIONS if name not in RECALIBRATION_SECTIONS}


def _parameters(config: Config, rows: Mapping[str, tuple[str, ...]], names: tuple[str, ...]) -> JsonDict:
    values = config.model_dump(mode="json", exclude_none=True)  # KFP knows no null
    parameters: JsonDict = {}
    for name, keys in rows.items():
        holders = [(_holder(values, key), key.rpartition(".")[2]) for key in keys]
        parameters[name] = Counter(holder[key] for holder, key in holders).most_common(1)[0][0]
        for holder, key in holders:
            if holder[key] == parameters[name]:
                del holder[key]
    del values["data"]["shards"]
    parameters |= {name: str(parameters[name]) for name in TEXTS if name in parameters}
    return parameters | {name: values[name] for name in names}


def sections(parameters: Mapping[str, Any], compiled: Mapping[str, Any]) -> JsonDict:
    """The sections of a config out of the parameters of a run, laid over those that were compiled.

    Args:
        parameters: The parameters of a run, by name; a section may be given in part.
        compiled: The same as they were compiled, whole.

    Returns:
        The sections, of which nothing is checked but that they do not contradict.

    Raises:
        ConfigError: If a section gives a key of `FORM` another value than its parameter, and neither is the compiled
            one; or if it gives what is compiled in.
    """
    return _sections(parameters, compiled, FORM, FORM_SECTIONS)


def recalibration_sections(
    parameters: Mapping[str, Any], compiled: Mapping[str, Any], rest: Mapping[str, Any]
) -> JsonDict:
    """The sections of a config out of the parameters of a recalibration, as `sections` has them, and of the rest."""
    return {**rest, **_sections(parameters, compiled, RECALIBRATION_FORM, RECALIBRATION_SECTIONS)}


def _sections(
    parameters: Mapping[str, Any],
    compiled: Mapping[str, Any],
    rows: Mapping[str, tuple[str, ...]],
    names: tuple[str, ...],
) -> JsonDict:
    values = {name: _over(Config, name, compiled, parameters[name]) for name in names}
    clashes = []
    for name, keys in rows.items():
        for path in keys:
            holder, key = _holder(values, path), path.rpartition(".")[2]
            given = holder.setdefault(key, parameters[name])
            if len(keys) == 1 and given != parameters[name] != compiled[name]:
                clashes.append(f"the parameter {name} is {shown(parameters[name])} but {path} is {shown(given)}")
    if "shards" in _holder(values, COMPILED):
        raise ConfigError(
            f"config: {COMPILED} is compiled into the pipeline: leave it out, or compile with another one"
        )
    if clashes:
        raise ConfigError(f"config: {'; '.join(clashes)}: change the parameter and leave the key out of its section")
    return values


def _over(section: type[Section], key: str, below: Mapping[str, Any], value: Any) -> Any:
    """A key's value laid over that of `below`, if the key is a section; what is no mapping is left to parsing."""
    field = section.model_fields.get(key)
    inner = section_of(field.annotation) if field else None
    if inner is None or not isinstance(value, Mapping):
        return copy.deepcopy(value)
    under = below.get(key) or {}
    return {**copy.deepcopy(dict(under)), **{name: _over(inner, name, under, value[name]) for name in value}}


def value_path(path: str) -> str:
    """A key of the config, cut after the first that is no section: what lies below it is part of one value."""
    section: type[Section] | None = Config
    parts = path.split(".")
    for depth, part in enumerate(parts, 1):
        field = section.model_fields.get(part) if section else None
        section = section_of(field.annotation) if field else None
        if section is None:
            return ".".join(parts[:depth])
    return path


def changes(before: Config, after: Config) -> Iterator[str]:
    """What differs between the configs of two runs, as lines `scrc.alpha 0.02 in place of 0.05`, key by key."""
    return _differences(
        before.model_dump(mode="json", exclude_none=True), after.model_dump(mode="json", exclude_none=True)
    )


def _differences(before: JsonDict, after: JsonDict, above: str = "") -> Iterator[str]:
    for key in before | after:
        old, new = before.get(key), after.get(key)  # None where it is absent: no value is null
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{above}{key}.")
        elif old != new:
            new_text, old_text = ("nothing" if value is None else shown(value) for value in (new, old))
            yield f"{above}{key} {new_text} in place of {old_text}"


def descriptions() -> dict[str, str]:
    """What each parameter of the form means, in one line."""
    return _texts(FORM, FORM_SECTIONS)


def recalibration_descriptions() -> dict[str, str]:
    """What each parameter of a recalibration means, in one line."""
    return _texts(RECALIBRATION_FORM, RECALIBRATION_SECTIONS)


def _texts(rows: Mapping[str, tuple[str, ...]], names: tuple[str, ...]) -> dict[str, str]:
    known = {entry.path: entry for entry in entries()}
    texts = {}
    for name, keys in rows.items():
        entry = known[keys[0]]
        kind = f"{entry.allowed[:1].upper()}{entry.allowed[1:]}."
        sent = f" {AS_A_TEXT.format(1)}" if name in TEXTS else ""
        meaning = SEED.format(", ".join(key.partition(".")[0] for key in keys)) if len(keys) > 1 else entry.meaning
        texts[name] = f"{meaning} {kind}{sent} Config: {', '.join(keys)}."
    for name in names:
        apart = [parameter for parameter, keys in rows.items() if any(key.startswith(f"{name}.") for key in keys)]
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
