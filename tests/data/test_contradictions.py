from natix_lib import config
from natix_lib.data.contradictions import contradicted, without_contradicting
from natix_lib.data.rows import Row, Source

RULES = {"None": {"text": ["construction", "traffic cone"]}}
ROWS = [
    Row("0", "None", tags={"text": "a quiet street"}),
    Row("1", "None", tags={"text": "Under CONSTRUCTION since May"}),
    Row("2", "Roadwork", tags={"text": "construction"}),
    Row("3", "None", tags={"text": None}),
    Row("4", "none", tags={"text": "one Traffic Cone"}),
    Row("5", 0, tags={"text": "construction"}),
]


def settings(**values: object) -> config.DataSource:
    return config.parse(config.DataSource, {"data_root": "x", "contradictions": RULES, **values})


def source(declared: list[str]) -> Source:
    return Source(ROWS, lambda: iter([row.id.encode() for row in ROWS]), class_names=declared)


def test_words_that_contradict_a_class_are_found_in_any_case_and_kept() -> None:
    document, lines = contradicted(source([]), settings())
    assert [example["id"] for example in document["examples"]] == ["1"] and document["count"] == 1
    assert document["examples"][0] == {
        "id": "1", "column": "text", "word": "construction", "text": "Under CONSTRUCTION since May",
    }  # fmt: skip
    assert lines == [
        "the text of 1 of 6 rows contradicts their class, and they are kept (data.contradicting: drop leaves them "
        "out): 1 (None, text: construction)"
    ]
    assert without_contradicting(source([]), settings()).rows == ROWS


def test_other_spellings_and_numbers_of_a_class_are_that_class() -> None:
    document, _ = contradicted(source(["None", "Roadwork"]), settings(class_aliases={"none": "None"}))
    assert [example["id"] for example in document["examples"]] == ["1", "4", "5"]


def test_they_are_left_out_with_their_pictures_where_the_config_says_so() -> None:
    left = without_contradicting(source(["None", "Roadwork"]), settings(contradicting="drop"))
    assert [row.id for row in left.rows] == ["0", "2", "3", "4"] and list(left.images()) == [b"0", b"2", b"3", b"4"]
    assert left.warnings == ["left out 2 of 6 rows whose text contradicts their class (data.contradicting: drop): 1, 5"]
    assert contradicted(left, settings(contradicting="drop")) == ({"count": 0, "examples": []}, [])


def test_a_long_text_is_shown_around_the_word() -> None:
    rows = [Row("0", "None", tags={"text": "x" * 5000 + " construction " + "y" * 5000})]
    document, _ = contradicted(Source(rows, lambda: iter([])), settings())
    (example,) = document["examples"]
    assert "construction" in example["text"] and len(example["text"]) < 200


def test_a_class_a_column_and_a_spelling_that_no_row_has_are_said() -> None:
    rules = {"Nonee": {"text": ["cone"]}, "None": {"scene": ["cone"]}}
    data = settings(contradictions=rules, class_aliases={"rodwork": "Roadwork"})
    rows = [Row("1", "None", tags={"text": "a street"}), Row("2", "Roadwork", tags={"text": None})]
    assert contradicted(Source(rows, lambda: iter(())), data)[1] == [
        "data.contradictions names the class 'Nonee', which no row has: classes are None, Roadwork",
        "data.contradictions names the column 'scene', which is no free column: they are text",
        "data.class_aliases names 'rodwork', which no row has as its label",
    ]
