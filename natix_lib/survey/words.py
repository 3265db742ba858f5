"""What is said of a data set and a machine: notes, each a title and sentences, for the screen and for the config."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from natix_lib.arrays import Ints
from natix_lib.config import Split
from natix_lib.contracts import ROLES, VAL_CALIB
from natix_lib.data.frames import in_drives, numbered
from natix_lib.data.rows import some
from natix_lib.decisions.calibration import Terms
from natix_lib.survey.look import Seen
from natix_lib.survey.machine import BASE, ENOUGH, Machine

RARE = 0.1  # share of the images below which a class is called rare
MOST_NAMED = 13  # classes that are named with their counts


@dataclass(frozen=True)
class Note:
    """Something that a person should know; `doubtful` where it needs a hand or costs something."""

    title: str
    text: str
    doubtful: bool = False


@dataclass(frozen=True)
class Certifiable:
    """What a set can certify.

    Attributes:
        groups: Groups in all, before pictures that look alike are joined.
        independent: Groups in VAL_CALIB, or images there where each is a group of its own.
        needed: How many alpha of the config needs, none of them wrong.
        alpha: The smallest alpha that so many can certify, rounded up to a hundredth; None when it is 1.
    """

    groups: int
    independent: int
    needed: int
    alpha: float | None


def certifiable(seen: Seen, terms: Terms | None) -> Certifiable | None:
    """What the division can certify; None where there is none, or nothing to certify."""
    if seen.division is None or terms is None:
        return None
    in_calib = seen.division.groups[seen.division.roles == ROLES.index(VAL_CALIB)]
    count = len(np.unique(in_calib))
    classes = len(seen.class_names)
    alpha = math.ceil(100 * terms.smallest_alpha(count, classes)) / 100
    return Certifiable(seen.division.group_count, count, terms.needed(classes), alpha if alpha < 1 else None)


def notes(seen: Seen, split: Split, terms: Terms | None, image_size: int, machine: Machine) -> list[Note]:
    """Everything that is said, in the order in which a person asks.

    Args:
        seen: The data set.
        split: How it would be divided.
        terms: What would be certified; None where no policy is to be.
        image_size: Side of the square that the model sees, pixels.
        machine: What can compute here.
    """
    return [
        Note("images", f"{len(seen.rows)}, {seen.layout}"),
        *_classes(seen),
        *_sizes(seen, image_size),
        *_unread(seen),
        *_columns(seen),
        *_groups(seen),
        *_division(seen, split),
        *_certificate(seen, split, terms),
        *_machine(machine),
        *(Note("warning", line, doubtful=True) for line in seen.warnings),
    ]


def _classes(seen: Seen) -> list[Note]:
    pairs = sorted(zip(seen.counts, seen.class_names, strict=True), key=lambda pair: -pair[0])
    named = ", ".join(f"{name} {count}" for count, name in pairs[:MOST_NAMED])
    rest = f" and {len(pairs) - MOST_NAMED} more" if len(pairs) > MOST_NAMED else ""
    result = [Note("classes", f"{named}{rest}")]
    rare = [f"{name} ({count / len(seen.rows):.1%})" for count, name in pairs if count < RARE * len(seen.rows)]
    if rare and len(pairs) == 2:
        result.append(
            Note(
                "balance",
                f"{rare[0]} is rare: its errors weigh more by training.class_weights, and accuracy says little",
            )
        )
    return result


def _sizes(seen: Seen, image_size: int) -> list[Note]:
    if not seen.sizes:
        return []
    (width, height), _ = Counter(seen.sizes).most_common(1)[0]
    shorter = sorted(min(size) for size in seen.sizes)
    sides = f"sides {shorter[0]} to {shorter[-1]}" if shorter[0] < shorter[-1] else f"side {shorter[0]} throughout"
    text = f"{width} x {height} most often, shorter {sides}, by {len(seen.sizes)} headers"
    small = sum(side < image_size for side in shorter)
    if 2 * small <= len(shorter):
        return [Note("sizes", text)]
    return [Note("sizes", f"{text}; most are enlarged to model.image_size {image_size}, which adds no detail", True)]


def _unread(seen: Seen) -> list[Note]:
    if not seen.unread:
        return []
    sampled = len(seen.sizes) + len(seen.unread) - seen.missing
    counts = [
        *([f"{seen.missing} of {len(seen.rows)} are not there"] if seen.missing else []),
        *(
            [f"{len(seen.unread) - seen.missing} of {sampled} cannot be read"]
            if len(seen.unread) > seen.missing
            else []
        ),
    ]
    text = f"{' and '.join(counts)}: {some(f'{name} ({reason})' for name, reason in seen.unread)}"
    return [Note("unread", f"{text}; ingest leaves them out, and refuses more than data.max_reject_fraction", True)]


def _columns(seen: Seen) -> list[Note]:
    rows = seen.rows
    counts = {
        key: sum(getattr(row, key) is not None for row in rows)
        for key in ("group", "source_id", "lat", "captured_at", "is_synthetic")
    }
    counts["lat, lon"] = counts.pop("lat")
    parts = [f"{key} in {'all' if count == len(rows) else count}" for key, count in counts.items() if count]
    slices = sorted({name for row in rows for name in row.tags})
    parts += [f"slices of the report: {some(slices)}"] if slices else []
    return [Note("columns", "; ".join(parts))] if parts else []


def _groups(seen: Seen) -> list[Note]:
    alone = sum(
        row.group is None and row.source_id is None and row.lat is None and row.captured_at is None for row in seen.rows
    )
    if not alone:
        return []
    frames = int(in_drives(numbered([row.id for row in seen.rows])).sum())
    by_name = (
        f"; names of {frames} images number frames, which split believes where pictures confirm it" if frames else ""
    )
    which = "no image says" if alone == len(seen.rows) else f"{alone} of {len(seen.rows)} images do not say"
    return [
        Note(
            "groups",
            f"{which} of which drive or place it is, so frames of one drive can reach two splits and make TEST look "
            f"better than the street: near-duplicates are joined, neighbours a second apart often are not{by_name}. "
            "A manifest.csv with image, label and group prevents it; natix data check shows what is joined",
            True,
        )
    ]


def _division(seen: Seen, split: Split) -> list[Note]:
    if seen.division is None:
        return [Note("split", f"would refuse this: {seen.refusal}", True)]
    roles: Ints = seen.division.roles
    sizes = ", ".join(f"{role} {int((roles == number).sum())}" for number, role in enumerate(ROLES))
    given = Counter(row.given_split for row in seen.rows if row.given_split)
    by = (
        f"given for {', '.join(f'{role} {given[role]}' for role in ROLES if given[role])}" if given else "none is given"
    )
    if not split.use_given and given:
        by += ", which split.use_given: false passes over"
    return [Note("split", f"{by}; about {sizes}, at most {seen.division.group_count} groups")]


def _certificate(seen: Seen, split: Split, terms: Terms | None) -> list[Note]:
    can = certifiable(seen, terms)
    if can is None or terms is None:
        return []
    what = (
        f"VAL_CALIB has about {can.independent} groups, fewer where pictures look alike; alpha {terms.alpha:g} at "
        f"delta {terms.delta:g} needs {can.needed} without an error"
    )
    if can.independent >= can.needed:
        return [Note("certify", f"{what} among those that the model is surest of")]
    reach = f"the smallest alpha they could certify is {can.alpha:g}" if can.alpha else "they can certify nothing"
    return [
        Note(
            "certify",
            f"{what}: {reach}. About {math.ceil(can.needed / split.ratios.val_calib)} such groups in all would "
            f"do instead of {can.groups}, none wrong among them, or a larger split.ratios.val_calib",
            True,
        )
    ]


def _machine(machine: Machine) -> list[Note]:
    chosen = machine.backbone
    if not machine.gpus:
        why = "the small one, because nothing but CPUs computes here"
    else:
        why = "the base model fits" if chosen == BASE else f"the small one, below {ENOUGH >> 30} GiB of GPU memory"
    token = "" if machine.has_token else " and HF_TOKEN is set"
    return [
        Note("machine", str(machine)),
        Note(
            "backbone",
            f"{chosen.name}, {chosen.parameters} M parameters, frozen: {why}. Once its licence is accepted on the hub"
            f"{token}, {chosen.gated} is as large and newer. Without the hub: a folder that holds a backbone, or, to "
            "try the pipeline, what natix backbone draws",
        ),
    ]
