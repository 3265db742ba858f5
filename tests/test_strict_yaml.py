"""What YAML takes silently and a person did not mean is one line with its place."""

import pytest

from natix_lib.errors import ConfigError
from natix_lib.strict_yaml import read_yaml, read_yaml_documents


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "config c.yaml")
    return str(caught.value)


def test_a_key_that_stands_twice_names_both_lines() -> None:
    message = refusal("model:\n  a: 1\ndata: 2\nmodel:\n  a: 2\n")
    assert message == "config c.yaml is not taken: line 4, column 1: the key model stands in line 1 and again in line 4"
    assert "the key a stands in line 1 and again in line 1" in refusal("{b: [{a: 1, 'a': 2}]}")


def test_aliases_are_taken_and_a_merge_gives_way_to_the_keys_beside_it() -> None:
    assert read_yaml("base: &b {lr: 1, epochs: 2}\nmine: {<<: *b, lr: 3}", "c")["mine"] == {"lr": 3, "epochs": 2}


@pytest.mark.parametrize("merge", ["", "<<: "])
def test_aliases_that_stand_for_a_billion_values_are_refused_at_once(merge: str) -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(9)) + "}"]
    for level in range(1, 10):
        lines.append(f"a{level}: &a{level} {{{merge or 'x: '}[{', '.join([f'*a{level - 1}'] * 9)}]}}")
    assert "with its aliases written out it has more than 20000 values" in refusal("\n".join(lines))
    chain = ["a0: &a0 []"] + [f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, 3000)]
    assert "or 40 levels" in refusal("\n".join(chain))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: [*a]}"])
def test_an_alias_inside_of_itself_is_refused(text: str) -> None:
    assert "the alias *a stands inside of what it stands for" in refusal(text)


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "[" * 41 + "]" * 41])
def test_nesting_ends_before_the_stack_does(text: str) -> None:
    assert "more than 40 levels are nested" in refusal(text)


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system [x]", "!!int x", "!!timestamp x", "!!bool x", "!!binary a", "!mine x", "! x"],
)
def test_tags_are_refused(text: str) -> None:
    assert "line 1, column 4: the tag" in refusal(f"a: {text}")


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5", "? [a]\n", "? {a: 1}\n"])
def test_a_key_must_be_a_text(key: str) -> None:
    assert "must be a text: put it in quotes" in refusal(f"a: 1\n{key}: 2")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-05-01", "2026-05-01"),
        ("2026-13-45", "2026-13-45"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("=", "="),
        ("1e-4", "1e-4"),
        ("9" * 40, "9" * 40),
        ("true", True),
        ("null", None),
        ("", None),
        ("-1_000", -1000),
        ("0", 0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("'1'", "1"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert read_yaml(f"a: {text}", "c") == {"a": value} and type(read_yaml(f"a: {text}", "c")["a"]) is type(value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_encoding_that_marks_itself_is_read(encoding: str) -> None:
    assert read_yaml("a: é".encode(encoding), "c") == {"a": "é"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: \xff", "is not YAML: unacceptable character"),
        (b"a: \0", "is not YAML: unacceptable character #x0000"),
        ("a:\n\tb: 1", "is not YAML: line 2, column 1: found character '\\\\t' that cannot start any token"),
        ('a: "\\U00110000"', "is not YAML"),
        ("a: [", "is not YAML: line 1, column 5: expected the node content"),
        ("a: 1\n---\na: 2", "must hold one YAML document, got 2: take the lines --- out"),
        ("x" * 2_000_000, "must have at most 1048576 bytes, got 2000000"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_its_place(text: str | bytes, message: str) -> None:
    line = refusal(text)
    assert message.replace("\\\\", "\\") in line and "\n" not in line and len(line) < 300


def test_an_empty_text_is_nothing_and_several_documents_are_a_list() -> None:
    assert read_yaml("", "c") is None and read_yaml("# only words\n", "c") is None
    assert read_yaml_documents("a: 1\n---\nb: 2", "c") == [{"a": 1}, {"b": 2}]
