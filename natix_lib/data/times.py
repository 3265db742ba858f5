"""Texts of `captured_at` -> seconds, a million in a second or two.

Read are ISO 8601 with and without a zone, its compact form, the colons of EXIF (`2024:05:01 12:00:00`), and seconds,
milliseconds, microseconds or nanoseconds since 1970, told apart by their size. A time without a zone is taken for UTC:
what counts is how far apart the frames of one source are, and one source writes its times in one way.

A day without a clock is no time: all images of a day would be one drive. Nor are a clock's zeros (1970 and before).
A file's name may end with a time too (`IMG_20240501_120000.jpg`, `2024-05-01_12-00-00.jpg`, `1704096000.9.png`). There
a clock has seconds, and seconds since 1970 a fraction: without them as many digits are as often something else.

Arrow's regular expressions rather than a parser for each text, which takes ten times as long, or pandas, which scoring
machines and ingest do not need for anything else. In a base install, where only `natix init` looks at data, Arrow may
be missing: no text is a time there then, and `natix init` says so.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Floats
from natix_lib.data.arrow_texts import HAS_ARROW, pa, pc

CLOCK = (
    r"^\s*(?P<year>\d{4})[-:/.]?(?P<month>\d{2})[-:/.]?(?P<day>\d{2})"
    r"(?:[T _]?(?P<hour>\d{2})[:.]?(?P<minute>\d{2})(?:[:.]?(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?"
    r"\s*(?:Z|z|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d{2}):?(?P<zone_minute>\d{2})?)?)?\s*$"
)
NAMED = (  # ends a name without its ending; `before` ends with no digit
    r"^(?P<before>(?:.*[^0-9])?)(?P<day>(?:19|20)\d{2}[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01]))"
    r"(?:[T_ -]|_at_| at )?(?P<hour>[01]\d|2[0-3])[-_.:hH]?(?P<minute>[0-5]\d)[-_.:mM]?(?P<second>[0-5]\d)[sS]?"
    r"(?:[._-]?(?P<fraction>\d{3}|\d{6}|\d{9}))?[zZ]?$"
)
MAY_BE_NAMED = r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d[^0-9]?[0-2]\d|1\d{9}\.|1\d{12}"  # quick, before the others
NAMED_SINCE = r"(?:^|[^0-9])(?P<time>1\d{9}\.\d{1,9}|1\d{12}|1\d{15}|1\d{18})$"
SINCE_1970 = r"^\s*(\d{10}|\d{13})(\.\d+)?\s*$|^\s*\d{16}\s*$|^\s*\d{19}\s*$"  # 12 and 14 digits: a date, a clock
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # from this number on, how many of its units are a second


def seconds(texts: Sequence[str | None]) -> Floats:
    """Seconds since 1970 in UTC of each text, (n,); NaN where it is missing, no time, a day alone, or before 1970."""
    result = np.full(len(texts), np.nan)
    if not HAS_ARROW or all(text is None for text in texts):
        return result
    values = pa.array(texts, type=pa.string())
    counts = pc.fill_null(pc.match_substring_regex(values, SINCE_1970), False).to_numpy(zero_copy_only=False)
    if counts.any():
        result[counts] = _since_1970(pc.utf8_trim_whitespace(values.filter(pa.array(counts))))
    rest = np.flatnonzero(~counts)
    result[rest] = _by_clock(values.take(pa.array(rest)))
    return np.where(result > 0, result, np.nan)


def of_names(stems: Any) -> tuple[Floats, Floats, Any]:
    """The times that names without their endings end with.

    Args:
        stems: An Arrow array of names, (n,).

    Returns:
        Seconds since 1970, NaN for none, (n,); those of a day and a clock alone, (n,); and what stands before these.
    """
    if not pc.any(pc.match_substring_regex(stems, MAY_BE_NAMED)).as_py():
        none = np.full(len(stems), np.nan)
        return none, none, stems
    parts = pc.extract_regex(stems, NAMED)

    def text(name: str) -> Any:
        return pc.fill_null(pc.struct_field(parts, name), "")

    day = pc.replace_substring_regex(text("day"), "[^0-9]", "")
    fraction = pc.utf8_rpad(text("fraction"), 1, "0")
    digits = pc.binary_join_element_wise(day, " ", text("hour"), text("minute"), text("second"), ".", fraction, "")
    clock = _by_clock(digits)
    since = pc.struct_field(pc.extract_regex(stems, NAMED_SINCE), "time")
    counted = since.is_valid().to_numpy(zero_copy_only=False)
    time = clock.copy()
    time[counted] = _since_1970(since.filter(pa.array(counted)))
    return time, clock, text("before")


def days_alone(texts: Sequence[str | None]) -> NDArray[np.bool_]:
    """Which texts name a day and no clock, (n,)."""
    if not HAS_ARROW:
        return np.zeros(len(texts), dtype=bool)
    parts = pc.extract_regex(pa.array(texts, type=pa.string()), CLOCK)
    return np.asarray(pc.fill_null(pc.equal(pc.struct_field(parts, "hour"), ""), False).to_numpy(zero_copy_only=False))


def _since_1970(values: Any) -> Floats:
    """Seconds of numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, (n,)."""
    number = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
    for least, unit in UNITS:
        number = np.where(number >= least, number / unit, number)
    return np.asarray(number)


def _by_clock(values: Any) -> Floats:
    """Seconds of texts with a day and a clock, NaN for others, (n,)."""
    parts = pc.extract_regex(values, CLOCK)
    valid = parts.is_valid().to_numpy(zero_copy_only=False)

    def text(name: str) -> Any:
        return pc.fill_null(pc.struct_field(parts, name), "")

    def number(name: str) -> NDArray[np.int64]:
        digits = pc.if_else(pc.equal(text(name), ""), "0", text(name))
        return np.asarray(pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False))

    month, day, hour = number("month"), number("day"), number("hour")
    minute, second = number("minute"), number("second")
    valid &= pc.not_equal(text("hour"), "").to_numpy(zero_copy_only=False)
    valid &= (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second <= 60)
    months = 12 * (number("year") - 1970) + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    next_first = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    valid &= first + day <= next_first
    fraction = pc.cast(pc.binary_join_element_wise("0", text("fraction"), "."), pa.float64())
    zone = 3600 * number("zone_hour") + 60 * number("zone_minute")
    west = pc.equal(text("sign"), "-").to_numpy(zero_copy_only=False)
    clock = 3600.0 * hour + 60 * minute + second + fraction.to_numpy(zero_copy_only=False)
    return np.where(valid, 86_400.0 * (first + day - 1) + clock + np.where(west, zone, -zone), np.nan)
