"""How a mutant finds its place; the mutants themselves stand in decisions/test_mutants.py."""

import pytest

from tests.mutants import DoesNotApply, Mutant, mutated

SOURCE = '''
import numpy as np

CHAINS = 4


def spend(delta: float, tests: int) -> float:
    """Shares delta."""
    share = (delta  # among the chains
             / CHAINS)
    other = tests - delta
    return share


class Rule:
    def apply(self, scores):
        def above(block):
            return scores[block] > self.threshold
        return above(slice(None))
'''


def changed(source: str, function: str, old: str, new: str) -> list[str]:
    """The lines that a mutant adds."""
    before = mutated(SOURCE, Mutant("rules.spend", "tests - delta", "tests - delta", "")).splitlines()
    return [line.strip() for line in mutated(source, Mutant(function, old, new, "")).splitlines() if line not in before]


def test_code_is_matched_however_it_is_laid_out() -> None:
    assert changed(SOURCE, "rules.spend", "delta/CHAINS", "delta") == ["share = delta"]
    assert changed(SOURCE, "rules.spend", "return share", "return other") == ["return other"]
    assert changed(SOURCE, "rules.Rule.apply.above", "scores[block] > self.threshold", "scores[block] >= 0") == [
        "return scores[block] >= 0"
    ]


def test_a_local_name_may_change_and_the_replacement_follows_it() -> None:
    renamed = SOURCE.replace("delta", "doubt").replace("share", "spent")
    assert mutated(renamed, Mutant("rules.spend", "delta / CHAINS", "2 * delta", "")).count("spent = 2 * doubt") == 1
    assert "return -spent" in mutated(renamed, Mutant("rules.spend", "return share", "return -share", ""))


@pytest.mark.parametrize(
    ("function", "old", "new", "message"),
    [
        ("rules.spend", "delta / 4", "delta", r"rules.spend must hold `delta / 4` once, holds it 0 times"),
        ("rules.spend", "delta / CHAIN", "delta", r"must hold `delta / CHAIN` once, holds it 0 times"),
        ("rules.spend", "delta", "1.0", r"rules.spend must hold `delta` once, holds it 2 times"),
        ("rules.spent", "delta", "1.0", r"rules.spent must be defined once, is 0 times"),
        ("rules.spend", "delta / CHAINS", "delta / J", r"rules.spend knows no J, which `delta / J` reads"),
    ],
)
def test_a_mutant_that_does_not_apply_says_so_in_one_line(function: str, old: str, new: str, message: str) -> None:
    with pytest.raises(DoesNotApply, match=f"^{message}$|{message}$"):
        mutated(SOURCE, Mutant(function, old, new, ""))
