"""From the labels of a source to class names, indices and the classes of the binary score."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from natix_lib.config import DataSource
from natix_lib.data.rows import name_cell
from natix_lib.errors import ConfigError, DataError


def resolve_classes(
    ids: Sequence[str],
    labels: Sequence[str | int | None],
    declared: Sequence[str],
    settings: DataSource,
    num_classes: int | None,
) -> tuple[list[str], list[int], list[str]]:
    """Class names in order, the class index of each image, and the positive classes.

    A label that `data.class_aliases` names is the class that it gives there. Names come from the settings, else from
    the source's declaration, else they are the sorted labels found. Integer labels index the names. Labels found that
    differ in case, spaces, hyphens or Unicode form alone are taken for one class spelt in two ways, and truth values
    beside numbers for two ways to write them, unless `data.class_names` names all.

    Args:
        ids: Id of each image, for messages.
        labels: Label of each image; None where it has none.
        declared: Names that the source declares; may be empty.
        settings: The source's settings, of which `class_names`, `class_aliases` and `positive_classes` are read.
        num_classes: Number of classes that the data must have; None allows any.

    Raises:
        DataError: If a label is missing, no class or a class is spelt in two ways, or there is one class only.
        ConfigError: If `num_classes` or `positive_classes` does not fit the data.
    """
    missing = [name for name, label in zip(ids, labels, strict=True) if label is None]
    if missing:
        raise DataError(
            f"label is missing in {len(missing)} of {len(ids)} rows, the first is {missing[0]}; data.unlabelled: drop "
            "leaves them out, adapt keeps them for adapt alone"
        )
    if not ids:
        raise DataError("no row has a label")
    spelt = [settings.class_aliases.get(str(label), label) for label in labels if label is not None]
    values = sorted(set(spelt), key=_order)
    names = list(settings.class_names or declared)
    if not names:
        names = list(dict.fromkeys(str(label) for label in values))
        _refuse_truth_beside_numbers(values)
        _refuse_spellings(names, Counter(str(label) for label in spelt))
        index = {label: names.index(str(label)) for label in values}
    else:
        index, plain = {}, [name_cell(name) for name in names]
        for label in values:
            position = (
                plain.index(text)
                if (text := name_cell(label) if isinstance(label, str) else None) in plain
                else index_of(label)
            )
            if position is None or not 0 <= position < len(names):
                first = ids[spelt.index(label)]
                raise DataError(
                    f"label {label!r} of {first} is none of the classes {', '.join(names)}; "
                    "data.class_aliases can say which of them it is"
                )
            index[label] = position
    if num_classes is not None and num_classes != len(names):
        raise ConfigError(f"model.num_classes is {num_classes} but the data has {len(names)}: {', '.join(names)}")
    indices = [index[label] for label in spelt]
    if len(set(indices)) < 2:
        raise DataError(f"the data must hold at least two classes, all {len(ids)} images are {names[indices[0]]}")
    unknown = sorted(set(settings.positive_classes) - set(names))
    if unknown:
        raise ConfigError(f"data.positive_classes {unknown} are none of the classes {', '.join(names)}")
    positive = list(settings.positive_classes) or (names[-1:] if len(names) == 2 else [])
    return names, indices, positive


def _order(label: str | int) -> tuple[int, float, str]:
    index = index_of(label)
    return (1, 0.0, str(label)) if index is None else (0, index, "")


def index_of(label: str | int) -> int | None:
    """The index that a label is written as; None where it is a name."""
    if isinstance(label, int):
        return label
    return int(label.partition(".")[0]) if re.fullmatch(r"-?[0-9]{1,9}(\.0+)?", label) else None


def _refuse_truth_beside_numbers(labels: Sequence[str | int]) -> None:
    truths = [label for label in labels if str(label).lower() in ("true", "false")]
    numbers = [label for label in labels if index_of(label) is not None]
    if truths and numbers:
        raise DataError(
            f"labels {truths[0]} and {numbers[0]} stand in one column, truth values beside numbers: write them alike, "
            "or set data.class_names to keep all"
        )


def _refuse_spellings(names: Sequence[str], counts: Counter[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"(?!^-[0-9])[\s_\-\u200b\ufeff]", "", unicodedata.normalize("NFKC", name).casefold())
        other = first.setdefault(plain, name)
        if plain and other != name:
            rare, common = sorted((other, name), key=counts.__getitem__)
            raise DataError(
                f"labels {other!r} ({counts[other]} images) and {name!r} ({counts[name]}) differ in case, spaces, "
                f"hyphens or Unicode form alone: write them alike, set data.class_aliases: {{{rare!r}: {common!r}}} to "
                "make them one class, or data.class_names to keep both"
            )
