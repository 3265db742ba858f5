"""What a person should see of a data set before a model is trained on it: the content of data.html.

Pairs are shown the most telling first: those that join two groups of the owner, and of them those that look least
alike, by the bits between their perceptual hashes, whatever the rule. A pair that a rule joins wrongly is then among
the first. No two pairs of a rule are of one group while there are others. What is counted is counted in full; what is
listed is the first of many, because a page with more than some hundred pictures is not looked at.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from natix_lib.arrays import Ints
from natix_lib.contracts import ROLES
from natix_lib.data.conflicts import conflicts
from natix_lib.data.continuity import Looks, looks
from natix_lib.data.division import CONFLICT, Division
from natix_lib.data.drives import CANNOT_TELL
from natix_lib.data.groups import Links, differ, numbers_of
from natix_lib.data.index import Index
from natix_lib.data.rules import SWITCHES
from natix_lib.data.sets import TAG_LIMIT
from natix_lib.data.thumbnails import Thumbnails
from natix_lib.errors import NatixError
from natix_lib.files import JsonDict

PAIRS = 6  # of a rule
OWN_PAIRS = 2  # of what the data's owner has said
OWN_RULES = ("group", "source_id")
GROUPS, OF_A_GROUP = 6, 4  # groups shown, and pictures of each
OF_A_KIND = 8  # tiny and flat pictures, and pairs across given splits
TAGS, VALUES = 12, 12
NO_LABEL = "no label"
TINY = 64  # pixels of the shorter side: four patches of a ViT
BINS = (0.25, 0.5, 0.75, 1.0, 4 / 3, 1.5, 16 / 9, 2.0, 2.5, 3.0, 4.0)  # of width to height


@dataclass(frozen=True)
class Images:
    """The images of an index, and where they went; rows are those of the index.

    Attributes:
        ids: Id of each image, (n,).
        labels: Class number of each image, -1 for none, (n,).
        roles: Index into `contracts.ROLES` of each image, -1 for none, (n,).
        class_names: Name of each class number.
        thumbnails: Gives the picture of a row.
    """

    ids: list[str]
    labels: Ints
    roles: Ints
    class_names: list[str]
    thumbnails: Thumbnails

    def picture(self, row: int) -> JsonDict:
        """What stands with the picture of a row."""
        role = self.roles[row]
        return {
            "id": self.ids[row],
            "class": self.class_name(int(self.labels[row])),
            "role": ROLES[role] if role >= 0 else "",
            "src": self.thumbnails.of(row),
        }

    def class_name(self, label: int) -> str:
        """What a person reads for a class number."""
        return self.class_names[label] if label >= 0 else NO_LABEL

    def pair(self, a: int, b: int, evidence: str) -> JsonDict:
        """Two pictures and why they stand together."""
        return {"pictures": [self.picture(a), self.picture(b)], "evidence": evidence}

    def count(self, rows: Any) -> dict[str, int]:
        """Images of each class among some rows."""
        labels = self.labels[rows]
        counts = np.bincount(labels[labels >= 0], minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))


def overview(index: Index, divided: tuple[Division, JsonDict] | NatixError, thumbnails: Thumbnails) -> JsonDict:
    """The content of the data report.

    Args:
        index: What is known of each image.
        divided: How they are divided and the content of splits.json, or why they cannot be.
        thumbnails: Gives the picture of a row of the index.

    Returns:
        What `reports.data.render_data` takes: JSON of a size that does not grow with the images.
    """
    ids = index.column("id")
    roles = np.full(len(ids), -1)
    if not isinstance(divided, NatixError):
        division, document = divided
        row_of = {name: row for row, name in enumerate(ids)}
        rows = np.array([row_of[name] for name in division.ids])
        roles[rows] = division.roles
    labels = np.array([-1 if label is None else label for label in index.column("label")], dtype=np.int64)
    images = Images(ids, labels, roles, index.class_names, thumbnails)
    told = index.document["warnings"]
    content: JsonDict = {
        "images": len(ids),
        "unlabelled": int((labels < 0).sum()),
        "refusal": str(divided) if isinstance(divided, NatixError) else "",
        "fingerprint": index.fingerprint,
        "left_out": [line for line in told if line.startswith("left out")],
        "warnings": [line for line in told if not line.startswith("left out")],
        "rejected": index.document["rejected"],
        "rejects": index.document["rejects"],
        "contradicting": _contradicting(images, index),
        "classes": _classes(images),
        "tags": _tags(images, index) if index.tag_names else [],
        "sizes": _sizes(images, index),
    }
    if not isinstance(divided, NatixError):
        judged = [line for line in content["warnings"] if not line.startswith(CANNOT_TELL)]  # now by split
        content["warnings"] = [*division.warnings, *judged]
        content["kept"] = document["previous"]
        content["dropped"] = CONFLICT in document["left_out"].values()
        content |= _divided(images, index, division, rows)
        content |= {key: document[key] for key in ("ratios", "counts")} | {"unplaced": len(document["left_out"])}
    return content


def _divided(images: Images, index: Index, division: Division, rows: Ints) -> JsonDict:
    """What only a division tells; `rows` are the index's rows of the division's."""
    sizes = np.bincount(division.groups)
    hashes, owners = index.column("hashes"), numbers_of(index.column("group"))
    order = _Telling(looks([hashes[row] for row in rows]), owners[rows], division.groups)
    joined = []
    for rule, links in division.rules.items():
        most = OWN_PAIRS if rule in OWN_RULES else PAIRS
        pairs = [images.pair(rows[links.to[row]], rows[row], links.why(row)) for row in order.first(links, most)]
        crossing = int(order.crosses(links.rows, links.to[links.rows]).sum())
        if pairs:
            switch = SWITCHES.get(rule, "")
            joined.append(
                {"rule": rule, "switch": switch, "links": len(links.rows), "crossing": crossing, "pairs": pairs}
            )
    known = np.array([number >= 0 for number in division.given])
    return {
        "groups": division.group_count,
        "for_adapt": int(division.for_adapt.sum()),
        "alone": int((sizes == 1).sum()),
        "largest_share": division.largest.share,
        "group_counts": {
            role: len(np.unique(division.groups[division.roles == number])) for number, role in enumerate(ROLES)
        },
        "given": {role: int((division.given[known] == number).sum()) for number, role in enumerate(ROLES)}
        if known.any()
        else {},
        "joined": joined,
        "largest": _largest(images, division, rows, sizes),
        "across": {
            "count": division.across.count,
            "exact": division.across.exact,
            "pairs": [
                images.pair(rows[a], rows[b], f"{bits} of 64 bits differ")
                for a, b, bits in division.across.nearest[:OF_A_KIND].tolist()
            ],
        },
        "conflicts": _conflicts(images, division, rows),
    }


class _Telling:
    """Which links of a rule a person should see first."""

    def __init__(self, pictures: Looks, owners: Ints, groups: Ints) -> None:
        self.pictures, self.owners, self.groups = pictures, owners, groups

    def crosses(self, a: Ints, b: Ints) -> Any:
        """Which pairs the owner of the data had put into two groups."""
        return differ(self.owners[a], self.owners[b])

    def first(self, links: Links, most: int) -> list[int]:
        """Rows whose links are the most telling, at most `most`."""
        a = links.rows
        b = links.to[a]
        bits = np.where(self.pictures.seen[a] & self.pictures.seen[b], self.pictures.differ(a, b), 0)
        ordered = a[np.lexsort((a, -bits, ~self.crosses(a, b)))]
        fresh = np.zeros(len(ordered), dtype=bool)
        fresh[np.unique(self.groups[ordered], return_index=True)[1]] = True
        chosen: list[int] = [*ordered[fresh][:most].tolist(), *ordered[~fresh][:most].tolist()]
        return chosen[:most]


def _largest(images: Images, division: Division, rows: Ints, sizes: Ints) -> list[JsonDict]:
    """The groups with the most images."""
    largest = []
    for first in np.argsort(-sizes, kind="stable")[:GROUPS].tolist():
        if sizes[first] < 2:
            break
        members = np.flatnonzero(division.groups == first)
        shown = members[np.unique(np.linspace(0, len(members) - 1, OF_A_GROUP).round().astype(np.int64))]
        links = {rule: int((links.to[members] != members).sum()) for rule, links in division.rules.items()}
        roles = {ROLES[role] for role in division.roles[members].tolist() if role >= 0}
        largest.append(
            {
                "name": division.ids[first],
                "images": len(members),
                "share": len(members) / len(division.ids),
                "roles": sorted(roles, key=ROLES.index),
                "classes": {name: count for name, count in images.count(rows[members]).items() if count},
                "links": {rule: count for rule, count in links.items() if count},
                "pictures": [images.picture(rows[row]) for row in shown],
            }
        )
    return largest


def _conflicts(images: Images, division: Division, rows: Ints) -> JsonDict:
    """Pictures that look the same and have different labels."""
    every = conflicts(division.rules, division.labels)
    pairs = [images.pair(rows[a], rows[b], rule.replace("_", " ")) for rule, a, b in every[:PAIRS]]
    return {"count": len(every), "pairs": pairs}


def _contradicting(images: Images, index: Index) -> JsonDict:
    """Images whose text contradicts their label, as ingest found them."""
    found = index.document["contradicting"]
    row_of = {name: row for row, name in enumerate(images.ids)} if found["count"] else {}
    examples = [
        {**example, "picture": images.picture(row_of[example["id"]])}
        for example in found["examples"]
        if example["id"] in row_of
    ]
    return {"count": found["count"], "examples": examples}


def _classes(images: Images) -> list[JsonDict]:
    counts = images.count(slice(None))
    return [{"name": name, "images": count} for name, count in counts.items()]


def _tags(images: Images, index: Index) -> list[JsonDict]:
    """Images of each value of the tags that are slices, by class."""
    structs = index.table(["tags"]).column("tags").combine_chunks()
    tags = []
    for name in index.tag_names:
        table = pa.table({"value": structs.field(name), "label": images.labels})
        classes: defaultdict[str | None, Counter[int]] = defaultdict(Counter)
        for row in table.group_by(["value", "label"]).aggregate([([], "count_all")]).to_pylist():
            classes[row["value"]][row["label"]] = row["count_all"]
        counts = Counter({value: every.total() for value, every in classes.items()})
        if not 2 <= len(counts) <= TAG_LIMIT:
            continue
        values = [
            {
                "value": value,
                "images": count,
                "commonest": images.class_name((top := classes[value].most_common(1)[0])[0]),
                "share": top[1] / count,
            }
            for value, count in counts.most_common(VALUES)
        ]
        tags.append({"name": name, "values": values, "more": len(counts) - len(values)})
    return tags[:TAGS]


def _sizes(images: Images, index: Index) -> JsonDict:
    """Sizes as stored: the shorter side is reduced to `data.resize_shorter_side` and never enlarged."""
    width, height = (np.array(index.column(name), dtype=np.int64) for name in ("width", "height"))
    shorter, aspect = np.minimum(width, height), width / height
    largest = index.document["resize_shorter_side"]
    tiny = np.flatnonzero(shorter < min(TINY, largest))
    flat = [row for row, value in enumerate(index.column("hashes")) if value is None]
    commonest = Counter(zip(width.tolist(), height.tolist(), strict=True)).most_common(5)
    return {
        "limit": largest,
        "smaller": int((shorter < largest).sum()),
        "shorter": {name: int(value) for name, value in zip(("least", "median", "most"), _three(shorter), strict=True)},
        "aspect": {name: float(v) for name, v in zip(("least", "median", "most"), _three(aspect), strict=True)},
        "upright": int((aspect < 1).sum()),
        "commonest": [{"width": w, "height": h, "images": count} for (w, h), count in commonest],
        "histogram": {
            "edges": list(BINS),
            "counts": np.histogram(np.clip(aspect, BINS[0], BINS[-1]), BINS)[0].tolist(),
        },
        "bytes": int(sum(index.column("bytes"))),
        "tiny_below": min(TINY, largest),
        "tiny": {"count": len(tiny), "pictures": [images.picture(int(row)) for row in tiny[:OF_A_KIND]]},
        "flat": {"count": len(flat), "pictures": [images.picture(row) for row in flat[:OF_A_KIND]]},
    }


def _three(values: Any) -> tuple[Any, Any, Any]:
    return values.min(), np.median(values), values.max()
