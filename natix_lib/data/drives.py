"""Which images are frames of one drive, where no column says so: by time, by names, and by how neighbours look.

- `time`: frames of one camera at most `split.drive_gap_s` apart, by `captured_at` or, without it, by a time that ends
  their names. Where both have places, what lies between them must be a speed that a car has, and frames are looked for
  among those near by, so that two cars in two cities at one second stay apart. Times are believed unless they join a
  tenth of the images and more while neighbours in time look no more alike than strangers: so it is with the pictures of
  a fleet without places.
- `name`: all frames of a run such as `pgh0123_*`. A number is not believed unless the pictures say so too, all runs of
  one form of name together: collections from the web are numbered as well.
- `looks`: neighbours in name or time order, in orders that the two others cannot use as a whole, that look alike as few
  strangers do: `IMG_0001` to `IMG_0900` of five drives and some buildings, a fleet's pictures by time.

What the owner of the data says is stronger. Rows of two groups are never joined here, and a row without a group joins
one group at most, the nearest. Two given splits are not joined either: a time and a name are no proof, and public sets
are divided by time, so such neighbours are counted and told, as near-duplicates are; refusing them was rejected.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.config import Split
from natix_lib.data.continuity import Looks, judge, looks
from natix_lib.data.frames import Frames, of_drives
from natix_lib.data.groups import Links, differ, joined, joined_by_all, joined_to, numbers_of, tree
from natix_lib.data.places import metres_between, within_metres
from natix_lib.data.times import seconds

CANNOT_TELL = "Drives cannot be told apart"
TIME, NAME, LOOKS = "time", "name", "looks"
SPEED = 50.0  # metres a second, 180 km/h
RECEIVER_M = 100.0  # by which two places of one car may be wrong together
NEXT = 8  # frames of other cars that may lie between two frames of one, among those near by
MOST = 0.1  # share of the images in one drive by their times, up to which pictures need not confirm it
WINDOW = 3  # places in an order over which neighbours that look alike are joined: one bus may hide one frame


@dataclass(frozen=True)
class Shots:
    """What the rules know of images, each (n,).

    Attributes:
        labels: Class numbers; images without a label are one more class.
        pictures: How they look.
        time: Seconds since 1970, NaN where unknown.
        lat: Degrees, NaN where unknown.
        lon: Degrees, NaN where unknown.
        given: Number of the given split, -1 for none.
        grouped: Whether a group is given.
        owner: Number of the group, or else of the given split, -1 where neither is given.
        before: Smallest row of those that rules before have joined to it.
    """

    labels: Ints
    pictures: Looks
    time: Floats
    lat: Floats
    lon: Floats
    given: Ints
    grouped: Bools
    owner: Ints
    before: Ints


@dataclass(frozen=True)
class Drives:
    """What the rules join, and what must be said.

    Attributes:
        rules: What each rule that is on joins.
        warnings: Sentences; images that name no drive come first.
    """

    rules: dict[str, Links]
    warnings: list[str]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of rows, (k, 2), and the seconds or frames between them, (k,)."""

    rows: Ints
    gap: Floats

    def only(self, which: Bools) -> "_Pairs":
        return _Pairs(self.rows[which], self.gap[which])

    def with_these(self, others: "_Pairs") -> "_Pairs":
        return _Pairs(np.concatenate([self.rows, others.rows]), np.concatenate([self.gap, others.gap]))


NO_PAIRS = _Pairs(np.empty((0, 2), dtype=np.int64), np.empty(0))


def find_drives(
    columns: Mapping[str, Sequence[Any]], given: Ints, settings: Split, class_names: Sequence[str] = ()
) -> Drives:
    """Join frames of one drive.

    Args:
        columns: The columns named by `division.COLUMNS`, each (n,).
        given: Number of the split that the owner gave each image, -1 for none, (n,).
        settings: Which rules are on.
        class_names: Name of each class number, as their folders may be called.
    """
    frames = of_drives(columns["id"], np.array(columns["label"], dtype=np.int64), class_names)
    shots = _shots(columns, given, frames.time)
    rules: dict[str, Links] = {}
    warnings: list[str] = []
    alike, useless = NO_PAIRS, np.zeros(len(given), dtype=bool)
    if settings.drive_gap_s > 0:
        pairs, near, useless, warnings = _by_time(shots, settings.drive_gap_s)
        by_time, shots = _kept(shots, pairs)
        rules[TIME] = Links(by_time, lambda row: f"{abs(shots.time[row] - shots.time[by_time[row]]):.3g} s apart")
        warnings += _across(shots, pairs, f"at most {settings.drive_gap_s:g} s apart")
        alike = alike.with_these(near)
    if settings.drive_names or settings.drive_looks:
        pairs, near = _by_name(shots, frames)
        alike = alike.with_these(near)
    if settings.drive_names:
        by_name, shots = _kept(shots, pairs)
        rules[NAME] = Links(by_name, lambda row: frames.apart(row, int(by_name[row])))
        warnings += _across(shots, pairs, "neighbouring frames of one drive by their names")
    if settings.drive_looks:
        look, shots = _kept(shots, alike)
        rules[LOOKS] = Links(
            look, lambda row: f"neighbours, {shots.pictures.differ([row], look[[row]])[0]} of 64 bits differ"
        )
    return Drives(rules, [*_untold(columns, shots, useless, [links.to for links in rules.values()]), *warnings])


def _shots(columns: Mapping[str, Sequence[Any]], given: Ints, of_name: Floats) -> Shots:
    group = numbers_of(columns["group"])
    time = seconds(columns["captured_at"])
    labels = np.array(columns["label"], dtype=np.int64)
    return Shots(
        labels=np.where(labels < 0, labels.max(initial=0) + 1, labels),
        pictures=looks(columns["hashes"]),
        time=np.where(np.isfinite(time), time, of_name),
        lat=np.array(columns["lat"], dtype=np.float64),
        lon=np.array(columns["lon"], dtype=np.float64),
        given=given,
        grouped=group >= 0,
        owner=np.where(group >= 0, group, np.where(given >= 0, group.max(initial=-1) + 1 + given, -1)),
        before=np.arange(len(labels)),
    )


def _by_time(shots: Shots, most: float) -> tuple[_Pairs, _Pairs, Bools, list[str]]:
    """Pairs of one drive, others that look alike, images whose times do not tell (n,), and sentences on them."""
    placed = np.isfinite(shots.lat) & np.isfinite(shots.lon)
    timed = np.flatnonzero(np.isfinite(shots.time))
    by_time = timed[np.argsort(shots.time[timed], kind="stable")]
    with_place = by_time[placed[by_time]]
    together, followed = NO_PAIRS, np.zeros(len(placed), dtype=bool)
    farthest = SPEED * most + RECEIVER_M
    doubled = itertools.takewhile(lambda metres: metres < farthest, (RECEIVER_M * 2**k for k in range(64)))
    for reach in [*doubled, farthest]:  # near ones first: of a fleet within kilometres NEXT frames may be other cars'
        near_by = joined_by_all([within_metres(shots.lat, shots.lon, reach)])
        ordered = with_place[np.argsort(near_by[with_place], kind="stable")]
        for step in range(1, NEXT + 1):
            pairs = _steps(ordered, step, shots.time)
            a, b = pairs.rows.T
            fit = (near_by[a] == near_by[b]) & (pairs.gap <= most) & ~followed[a]
            metres = metres_between(shots.lat, shots.lon, a[fit], b[fit])
            fit[fit] = metres <= SPEED * pairs.gap[fit] + RECEIVER_M
            followed[a[fit]] = True
            together = together.with_these(pairs.only(fit))
    steps = [_steps(by_time, step, shots.time) for step in range(1, WINDOW + 1)]
    steps = [pairs.only((pairs.gap <= most) & ~placed[pairs.rows].all(axis=1)) for pairs in steps]
    neighbours = together.with_these(steps[0])
    order = np.repeat([0, 1], [len(together.gap), len(steps[0].gap)])
    ranked = by_time[np.argsort(shots.labels[by_time], kind="stable")]
    verdict = judge(shots.pictures, neighbours.rows, order, shots.labels, ranked)
    sure, alike, useless, warnings = NO_PAIRS, NO_PAIRS, np.zeros(len(placed), dtype=bool), []
    for number, pairs, window in ((0, together, [together]), (1, steps[0], steps)):
        if number < len(verdict.share) and verdict.streets[number] and _largest(len(placed), pairs) > MOST * len(timed):
            for near in window:
                alike = alike.with_these(_look_alike(shots, near, np.full(len(near.gap), verdict.alike[number])))
            useless |= np.isfinite(shots.time) & (placed == (number == 0))
            warnings.append(
                f"{len(np.unique(pairs.rows))} images {'with' if number == 0 else 'without'} a place follow one "
                f"another within {most:g} s, but only {verdict.share[number]:.0%} of neighbours look more alike than "
                "strangers, where chance gives 50%: their times join only those that look alike."
            )
        else:
            sure = sure.with_these(pairs)
    return sure, alike, useless, warnings


def _by_name(shots: Shots, frames: Frames) -> tuple[_Pairs, _Pairs]:
    """Pairs of one drive by their names, and neighbours by name that look alike where names alone do not tell.

    A run that may be a drive's name is believed as soon as its pictures look so: of a drive of 18 frames too few pairs
    can be sure, a run joined by mistake costs a group, and one that falls apart costs TEST.
    """
    rows = np.flatnonzero(frames.run >= 0)
    ordered = rows[np.lexsort((frames.number[rows], frames.run[rows]))]
    steps = [_steps(ordered, step, frames.number) for step in range(1, WINDOW + 1)]
    steps = [pairs.only(frames.run[pairs.rows[:, 0]] == frames.run[pairs.rows[:, 1]]) for pairs in steps]
    form = frames.form[steps[0].rows[:, 0]]
    pool = np.unique(np.stack([shots.labels, np.where(frames.named, -1, frames.form)]), axis=1, return_inverse=True)[1]
    ranked = ordered[np.argsort(pool[ordered], kind="stable")]
    verdict = judge(shots.pictures, steps[0].rows, form, pool.ravel(), ranked)
    alike = NO_PAIRS
    for pairs in steps:
        form = frames.form[pairs.rows[:, 0]]
        counted = pairs.only(verdict.frames[form] & ~frames.named[pairs.rows[:, 0]])
        alike = alike.with_these(_look_alike(shots, counted, verdict.alike[frames.form[counted.rows[:, 0]]]))
    sure = steps[0].with_these(_in_given_splits(shots, frames, rows))
    form = frames.form[sure.rows[:, 0]]
    return sure.only(verdict.likely[form] & frames.named[sure.rows[:, 0]]), alike


def _in_given_splits(shots: Shots, frames: Frames, rows: Ints) -> _Pairs:
    """Frames of one run that follow one another within a given split, where runs alternate between splits."""
    rows = rows[shots.given[rows] >= 0]
    ordered = rows[np.lexsort((frames.number[rows], shots.given[rows], frames.run[rows]))]
    pairs = _steps(ordered, 1, frames.number)
    a, b = pairs.rows.T
    return pairs.only((frames.run[a] == frames.run[b]) & (shots.given[a] == shots.given[b]))


def _largest(count: int, pairs: _Pairs) -> int:
    """Images of the largest component that the pairs make."""
    return int(np.bincount(joined(count, *pairs.rows.T)).max(initial=0))


def _steps(ordered: Ints, step: int, value: Floats | Ints) -> _Pairs:
    """Rows that are `step` places apart in an order."""
    a, b = ordered[:-step], ordered[step:]
    return _Pairs(np.stack([a, b], axis=1), np.abs(value[b] - value[a]).astype(np.float64))


def _look_alike(shots: Shots, pairs: _Pairs, bits: Ints) -> _Pairs:
    a, b = pairs.rows.T
    return pairs.only(shots.pictures.seen[a] & shots.pictures.seen[b] & (shots.pictures.differ(a, b) <= bits))


def _kept(shots: Shots, pairs: _Pairs) -> tuple[Ints, Shots]:
    """Links by those pairs that join no two owners, (n,), and the images, joined ones owned like the others."""
    count = len(shots.owner)
    owner = shots.owner[pairs.rows]
    inside = (owner[:, 0] == owner[:, 1]) & ~shots.grouped[pairs.rows].all(axis=1)
    component = joined_to(shots.before, *pairs.rows[inside].T)
    bridges = pairs.only((owner < 0).sum(axis=1) == 1)
    free = np.where(shots.owner[bridges.rows[:, 0]] < 0, *bridges.rows.T)
    order = np.lexsort((bridges.gap, component[free]))
    first = order[np.diff(component[free][order], prepend=-1) != 0]
    rows = np.concatenate([pairs.rows[inside], bridges.rows[first]])
    smallest = joined_to(shots.before, *rows.T)
    owners = np.full(count, -1)
    np.maximum.at(owners, smallest, shots.owner)
    owner = np.where(shots.owner < 0, owners[smallest], shots.owner)
    return tree(count, *rows.T), replace(shots, owner=owner, before=smallest)


def _across(shots: Shots, pairs: _Pairs, what: str) -> list[str]:
    """A sentence on neighbours in two given splits, but those that the owner says are of two drives."""
    count = np.count_nonzero(differ(*shots.given[pairs.rows].T) & ~shots.grouped[pairs.rows].all(axis=1))
    return (
        [f"{count} pairs of images in different given splits are {what}, so figures on TEST can be too good."]
        if count
        else []
    )


def _untold(columns: Mapping[str, Sequence[Any]], shots: Shots, useless: Bools, rules: list[Ints]) -> list[str]:
    """A sentence on images that name no drive and that no rule joins to another."""
    told = shots.grouped | (np.isfinite(shots.time) & ~useless) | np.isfinite(shots.lat)
    told |= np.array([source is not None for source in columns["source_id"]], dtype=bool)
    for to in rules:
        moved = np.flatnonzero(to != np.arange(len(to)))
        told[moved] = told[to[moved]] = True
    count = len(told) - np.count_nonzero(told)
    if not count:
        return []
    return [
        f"{CANNOT_TELL} in {count} of {len(told)} images ({count / len(told):.0%}): they name neither group, place, "
        "source_id nor time, and no frame numbers that their pictures confirm, so frames of one drive can lie in two "
        "splits unless they look alike."
    ]
