"""The config that is drafted: the keys that the data or the machine decide, each with a comment, and no others.

Everything else keeps its default, so that a first reader sees what is about this set alone; `natix config --config`
prints the rest. What is said on the screen stands above the keys.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from natix_lib.config import Config, parse
from natix_lib.config.data import MOST_WORKERS
from natix_lib.config.explain import WIDTH, entries, flow
from natix_lib.config.whole import SECTIONS
from natix_lib.decisions.calibration import Terms
from natix_lib.errors import printable
from natix_lib.files import JsonDict
from natix_lib.survey.look import Seen
from natix_lib.survey.machine import Machine
from natix_lib.survey.words import Note, certifiable

NOTHING_SEEN = re.compile(
    r"no(?:ne|rmal)?|neg(?:ative)?|background|clear|other|(?:no|non|not|without)[-_ ].*", re.IGNORECASE
)
ROADWORK = re.compile(r"road[-_ ]?works?|work[-_ ]?zones?|construction", re.IGNORECASE)


@dataclass(frozen=True)
class Key:
    """A key of the draft: its value, why, and whether it is written as a comment only."""

    value: Any
    comment: str
    only_shown: bool = False


def draft(given: JsonDict, seen: Seen, machine: Machine, terms: Terms | None) -> dict[str, Key]:
    """The keys, by their path, in the order of the config.

    Args:
        given: Values that the person has set, data.data_root among them.
        seen: The data set.
        machine: What can compute here.
        terms: What would be certified; None where no policy is to be.
    """
    backbone, can = machine.backbone, certifiable(seen, terms)
    keys = {
        "data.data_root": Key(given["data"]["data_root"], f"{len(seen.rows)} images, {seen.layout}."),
        **_classes(seen),
        **({"data.unlabelled": Key("drop", f"{seen.unlabelled} rows have no label.")} if seen.unlabelled else {}),
        **_workers(machine),
        "model.backbone_id": Key(
            backbone.name, "A hub id, a local folder, gs:// or s3://, frozen; only a head is trained."
        ),
        "export.policy": Key(
            "calibrate", "The policy that ships: calibrate comes with its guarantee, sweep with none."
        ),
        **_gpus(machine),
    }
    if can and can.alpha and can.independent < can.needed:
        keys["scrc.alpha"] = Key(
            can.alpha,
            f"The least that {can.independent} groups in VAL_CALIB could certify, if none of them is wrong.",
            True,
        )
    keys |= {path: Key(value, "As set.") for path, value in _leaves(given) if path != "data.data_root"}
    return {path: keys[path] for entry in entries() if (path := entry.path) in keys}


def text(keys: Mapping[str, Key], notes: Sequence[Note], command: str) -> str:
    """The config as YAML with comments.

    Args:
        keys: As `draft` gives them.
        notes: What is said above them.
        command: What wrote it, and how the reader goes on, a line each.

    Raises:
        ConfigError: If it would be no valid config.
    """
    parse(Config, values(keys))
    lines = [line for part in command.splitlines() for line in _comment(part)]
    lines.append("#")
    for note in notes:
        lines += _comment(f"{note.title}: {note.text}.", "  ")
    for section in SECTIONS:
        inside = {path: key for path, key in keys.items() if path.split(".")[0] == section}
        if inside:
            lines += ["", *_section(inside, 0)]
    return "\n".join(lines) + "\n"


def values(keys: Mapping[str, Key]) -> JsonDict:
    """The values as a config holds them."""
    result: JsonDict = {}
    for path, key in keys.items():
        if not key.only_shown:
            *above, name = path.split(".")
            section = result
            for part in above:
                section = section.setdefault(part, {})
            section[name] = key.value
    return result


def _section(keys: Mapping[str, Key], level: int) -> list[str]:
    """Lines of the keys that share their first `level` + 1 names; without a key that holds, all are comments."""
    lines = [f"{next(iter(keys)).split('.')[level]}:"]
    only_shown = all(key.only_shown for key in keys.values())
    for name in dict.fromkeys(path.split(".")[level + 1] for path in keys):
        inside = {path: key for path, key in keys.items() if path.split(".")[level + 1] == name}
        path, key = next(iter(inside.items()))
        if path.count(".") > level + 1:
            block = _section(inside, level + 1)
        else:
            mark = "# " if key.only_shown and not only_shown else ""
            block = [*_comment(key.comment), f"{mark}{name}: {flow(key.value, any_character=True)}"]
        lines += [f"  {line}" for line in block]
    return [f"# {line}" for line in lines] if only_shown and level == 0 else lines


def _comment(said: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(
        printable(" ".join(said.split())),
        WIDTH,
        initial_indent="# ",
        subsequent_indent=f"# {hanging}",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _classes(seen: Seen) -> dict[str, Key]:
    """The positive class where names tell it, and where they do not the one that natix would take, to be looked at."""
    if len(seen.class_names) > 2:
        comment = "Classes that add up to the binary score, if you want one; without them there is none."
        return {"data.positive_classes": Key(seen.class_names[-1:], comment, True)}
    likely = [name for name in seen.class_names if ROADWORK.fullmatch(name)]
    likely = likely or [name for name in seen.class_names if not NOTHING_SEEN.fullmatch(name)]
    if len(likely) == 1:
        return {"data.positive_classes": Key(likely, "The class that the binary score is about, told by its name.")}
    other = next(name for name in seen.class_names if name not in seen.positive)
    comment = f"The class that the binary score is about: names do not tell, natix takes the last; or is it {other}?"
    return {"data.positive_classes": Key(seen.positive, comment, True)}


def _workers(machine: Machine) -> dict[str, Key]:
    if not machine.gpus or machine.cpus <= 2:
        return {}
    comment = f"Processes that decode pictures for the GPU, of {machine.cpus} CPUs."
    return {"data.dataloader.num_workers": Key(min(machine.cpus, MOST_WORKERS), comment)}


def _gpus(machine: Machine) -> dict[str, Key]:
    if len(machine.gpus) == 1:
        return {}
    comment = f"{machine.source} sees {len(machine.gpus)}." if machine.gpus else "None here; on a cluster, 1 or more."
    return {"hardware.num_gpus": Key(len(machine.gpus), comment)}


def _leaves(given: JsonDict, path: str = "") -> list[tuple[str, Any]]:
    """Paths and values of the keys that are set; a section ends where the config's own do."""
    sections = {entry.path for entry in entries() if entry.is_section}
    result = []
    for name, value in given.items():
        here = f"{path}.{name}" if path else name
        result += _leaves(value, here) if here in sections and isinstance(value, dict) else [(here, value)]
    return result
