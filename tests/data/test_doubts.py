from typing import Any

import pytest

from natix_lib.data.doubts import contradictions, without_names, without_placeholders
from natix_lib.data.rows import Row

GROUPED = "Drives cannot be told apart"


def rows(count: int, **values: Any) -> list[Row]:
    """Rows 0, 1, ...; a list gives each row its own value."""
    return [
        Row(f"{n}.jpg", "x", **{key: value[n] if isinstance(value, list) else value for key, value in values.items()})
        for n in range(count)
    ]


def cleaned(*arguments: Any, **values: Any) -> tuple[list[Row], list[str]]:
    changed, lines = without_placeholders(rows(*arguments, **values))
    return changed, [line for line in lines if GROUPED not in line]


@pytest.mark.parametrize(
    "word",
    ["unknown", "NaN", "None", "-", "N/A", "null", "?", "-1", "<NA>", "Unspecified", "[unknown]", "—", "\\N", "n.a.",
     "N.A", "Not applicable", "#REF!", "#VALUE!", "#NAME?", "#BEZUG!", "#NV", "1.#QNAN"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["group", "source_id"])
def test_a_placeholder_joins_nothing_and_is_said_with_its_share(key: str, word: str) -> None:
    changed, lines = cleaned(8, **{key: [word, word, "d1", "d2", word, "d3", "d4", word]})
    assert [getattr(row, key) for row in changed] == [None, None, "d1", "d2", None, "d3", "d4", None]
    assert lines == [
        f"{key} {word!r} is a placeholder in 4 of 8 rows (50%) and joins nothing: 0.jpg, 1.jpg, 4.jpg and 1 more"
    ]


def test_names_that_only_hold_such_a_word_are_kept() -> None:
    changed, lines = cleaned(4, group=["unknown-road", "none2", "nancy", "0"])
    assert changed == rows(4, group=["unknown-road", "none2", "nancy", "0"]) and lines == []


def test_latitude_0_longitude_0_is_no_place() -> None:
    changed, lines = cleaned(4, lat=[0.0, 0.0, 48.1, -1e-7], lon=[0.0, 11.0, 11.5, 1e-7])
    assert [(row.lat, row.lon) for row in changed] == [(None, None), (0.0, 11.0), (48.1, 11.5), (None, None)]
    assert lines == ["lat 0, lon 0 is a placeholder in 2 of 4 rows (50%) and joins nothing: 0.jpg, 3.jpg"]


def test_a_group_or_place_of_most_rows_is_kept_and_said() -> None:
    given = rows(40, group=["0"] * 30 + list("abcdefghij"), lat=[48.1] * 25 + [47.0] * 15, lon=11.5)
    changed, lines = without_placeholders(given)
    assert changed == given
    assert lines == [
        "group '0' holds 30 of 40 rows (75%), which are kept together: leave the cells empty if it is a placeholder",
        "lat 48.1, lon 11.5 is given for 25 of 40 rows (62%), which are kept together: leave the cells empty if it is "
        "a default",
    ]


def test_rows_that_nothing_joins_are_counted_after_placeholders_are_taken_out() -> None:
    _, lines = without_placeholders(rows(4, group=["a", "unknown", None, None], source_id=[None, None, "s", None]))
    assert lines[0].startswith(f"{GROUPED} in 2 of 4 rows (50%): they name neither group, place, source_id nor time;")
    assert "names of" not in lines[0]


def test_a_time_tells_drives_apart_and_a_day_or_an_unreadable_one_does_not() -> None:
    _, lines = without_placeholders(rows(3, captured_at=["2025-01-01T10:00:00", "2025-01-01", "noon"]))
    assert lines[0].startswith(f"{GROUPED} in 2 of 3 rows (67%)")


def test_names_that_number_frames_of_drives_are_counted() -> None:
    names = ["d1_0001.jpg", "d1_0002.jpg", "d2_0001.jpg", "IMG_1.jpg", "IMG_2.jpg"]
    _, lines = without_placeholders([Row(name, "x") for name in names])
    assert "in 5 of 5 rows" in lines[0] and "; names of 2 of them number frames, which split believes" in lines[0]


@pytest.mark.parametrize(
    "time",
    [
        "2025:01:01 10:00:00",
        "20250101T100000Z",
        "2025-01-01T10:00:00Z",
        "2025-01-01 10:00:00.123+02:00",
        "1735689600",
        "1735689600000",
        "1735689600.5",
    ],
)
def test_times_of_iso_8601_and_since_1970_are_not_said(time: str) -> None:
    assert cleaned(1, captured_at=time) == (rows(1, captured_at=time), [])


def test_other_times_are_kept_as_text_and_said() -> None:
    changed, lines = cleaned(3, captured_at=["2025-13-01 10:00:00", "noon", "2025-01-01"])
    assert [row.captured_at for row in changed] == ["2025-13-01 10:00:00", "noon", "2025-01-01"]
    assert lines == [
        "captured_at is neither ISO 8601, a time of EXIF nor seconds since 1970 in 2 of 3 rows (67%), kept as text, "
        "and joins nothing: 2025-13-01 10:00:00 (0.jpg), noon (1.jpg)",
        "captured_at is a day without a clock in 1 of 3 rows (33%) and joins nothing: 2025-01-01 (2.jpg)",
    ]


def test_one_time_of_most_rows_is_kept_and_said() -> None:
    times = ["2025-01-01T00:00:00"] * 30 + [f"2025-01-01T10:00:{n}0" for n in range(6)]
    assert cleaned(36, captured_at=times)[1] == [
        "captured_at 2025-01-01T00:00:00 is given for 30 of 36 rows (83%), which are kept together: leave the cells "
        "empty if it is a default"
    ]


def test_a_label_that_looks_missing_is_said() -> None:
    _, lines = without_placeholders([Row("a", "nan", "g"), Row("b", "None", "h"), Row("c", "NaN", "i")])
    assert lines == [
        "label 'NaN', 'nan' looks like a missing label in 2 of 3 rows (67%) and is a class all the same: a, c"
    ]


@pytest.mark.parametrize("word", ["\\N", "n.a.", "N.A", "not applicable", "#REF!", "#value!", "#DIV/0!"])
def test_what_databases_and_spreadsheets_write_for_no_value_looks_like_a_missing_label(word: str) -> None:
    changed, [line] = without_placeholders([Row("a", word, "g"), Row("b", "x", "h")])
    assert line.startswith(f"label {word!r} looks like a missing label in 1 of 2 rows") and changed[0].label == word


@pytest.mark.parametrize("label", ["-1", -1, "None", "unknown", "#1"])
def test_a_label_that_sets_use_for_a_class_is_not_said(label: str | int) -> None:
    assert without_placeholders([Row("a", label, "g"), Row("b", "x", "h")])[1] == []


def test_columns_with_almost_as_many_values_as_rows_are_no_slices() -> None:
    given = [
        Row(
            str(n),
            "x",
            tags={"url": f"u{n}", "Unnamed: 0": str(n), "city": "AB"[n % 2], "pair": str(n // 2), "note": None},
        )
        for n in range(8)
    ]
    changed, lines = without_names(given)
    assert [row.tags for row in changed] == [{"city": "AB"[n % 2], "pair": str(n // 2), "note": None} for n in range(8)]
    assert lines == [
        "left out 2 columns with almost as many values as rows, which are no slices: Unnamed: 0 (8 values in 8 rows), "
        "url (8 values in 8 rows)"
    ]


def test_equal_pixels_under_two_classes_are_counted_with_examples() -> None:
    images = [("a", "p", "None"), ("b", "q", "None"), ("c", "p", "Roadwork"), ("d", "p", "None"), ("e", "q", "None")]
    assert contradictions(images) == [
        "1 pictures have equal pixels and contradicting labels, 3 images: a (None) and c (Roadwork)"
    ]
    assert contradictions(images[3:]) == []
