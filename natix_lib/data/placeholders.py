"""How tables, databases, spreadsheets and people write that there is no value."""

import re

# Compared in lower case. What programs write, most of it missing to pandas too, looks like a missing label as well.
LABELS = {"nan", "-nan", "null", "n/a", "n.a.", "n.a", "na", "<na>", "#n/a", "#n/a n/a", "#na", "#nv", "\\n", "-", "?"}
LABELS |= {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "not applicable"}
# What else names nothing; none and unknown are classes of road sets.
WORDS = {"unknown", "unk", "unnamed", "undefined", "unspecified", "not available", "missing", "tbd", "no group", "nil"}
WORDS |= {"unassigned", "not set", "empty", "blank", "nogroup", "no_group", "no sequence", "---", "_", "–", "—", "--"}
WORDS |= {"nat", "none", "(none)", ".", "-1", *LABELS}
SPREADSHEET_ERROR = re.compile(r"#[^\s#]+[!?]")  # #REF!, #VALUE!, #DIV/0!, #NAME?, and #BEZUG! in another language


def is_placeholder(text: str) -> bool:
    """Whether a cell that names something, such as a group, says that there is nothing to name."""
    bare = text.strip("<>()[]{}'\"").strip().lower()
    return not bare or not {bare, text.lower()}.isdisjoint(WORDS) or SPREADSHEET_ERROR.fullmatch(bare) is not None


def is_missing_label(text: str) -> bool:
    """Whether a class looks like a label that is missing."""
    return text.lower() in LABELS or SPREADSHEET_ERROR.fullmatch(text) is not None
