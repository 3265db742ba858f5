from natix_lib.errors import LONGEST, NatixError


def test_a_message_is_one_line_of_printable_characters() -> None:
    assert str(NatixError("a\n b\t\x1b[31m c\0 \ud800 é")) == "a b \\x1b[31m c\\x00 \\ud800 é"


def test_of_a_long_message_both_ends_are_kept() -> None:
    message = str(NatixError("begin " + "x" * 1_000_000 + " end"))
    assert len(message) == LONGEST and message.startswith("begin x") and message.endswith("x end")


def test_a_message_keeps_secrets_to_itself() -> None:
    message = str(NatixError("https://user:pass@host/x and hf_abcdefghijklmnopqrst, not hardware.hf_token_secret"))
    assert message == "https://***@host/x and hf_***, not hardware.hf_token_secret"
