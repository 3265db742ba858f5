"""The table of heads that `training.grid` tried, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = bool | int | float | str

FIGURES = {  # of a row of `trained.grid`; all other keys are settings of the head
    "val_select_acc": "accuracy",
    "val_select_macro_f1": "macro-F1",
    "val_select_mcc": "MCC",
    "val_select_loss": "loss",
    "train_loss": "loss on TRAIN",
    "epoch": "best epoch",
}
SETTINGS = {"lr": "learning rate", "dropout_rate": "dropout"}  # where the title is not the key
KEPT = "kept"


@dataclass(frozen=True)
class Row:
    """A head: a text for each title, and whether it is the one that is kept."""

    cells: list[str]
    kept: bool


@dataclass(frozen=True)
class HeadsTable:
    """Titles of the columns, and the heads, the one with the highest accuracy first."""

    titles: list[str]
    rows: list[Row]


def heads_table(grid: Sequence[Mapping[str, Value]]) -> HeadsTable:
    """The table of `trained.grid` of classifier.json.

    Args:
        grid: A line for each head: its settings, `kept`, and the figures of its best epoch, which a head that never had
            a finite loss lacks.

    Returns:
        Settings first, in the order of their keys. Heads of the same accuracy stand by rising loss, those without
        figures last.
    """
    settings = list(dict.fromkeys(key for row in grid for key in row if key != KEPT and key not in FIGURES))
    titles = ["head", *(SETTINGS.get(key, key.replace("_", " ")) for key in settings), *FIGURES.values()]

    def rank(row: Mapping[str, Value]) -> tuple[float, float]:
        return -float(row.get("val_select_acc", -1)), float(row.get("val_select_loss", 0))

    rows = []
    for number, row in enumerate(sorted(grid, key=rank), 1):
        texts = [str(number) + (", kept" if row[KEPT] else "")]
        texts += [_text(row.get(key), "%g") for key in settings]
        texts += [_text(row.get(key), "%d" if key == "epoch" else "%.3f") for key in FIGURES]
        rows.append(Row(texts, bool(row[KEPT])))
    return HeadsTable(titles, rows)


def _text(value: Value | None, number: str) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else number % value
