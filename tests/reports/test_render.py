import re
from typing import Any

import numpy as np
import pytest

from natix_lib.contracts import ROLES
from natix_lib.decisions import Policy
from natix_lib.evaluation import Scored, evaluate
from natix_lib.reports.render import render_report

EVIL = "<script>alert('x')</script>"


def documents(names: tuple[str, str] = ("None", "Roadwork"), certified: bool = True) -> tuple[dict[str, Any], ...]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    logits = generator.normal(0, 1, (200, 2))
    logits[np.arange(200), labels] += 2
    policy = Policy(names, names[1:], "threshold", 0.4, 1.3)
    scored = Scored(labels, (np.arange(200) // 4).astype(str), policy.apply(logits), policy.positive_mask())
    found = evaluate(scored, names, {"city": ["Arden", EVIL] * 100}, 100, 0.95, 0, 20)
    guarantee = {
        "certified": certified,
        "alpha": 0.1,
        "delta": 0.1,
        "m": 60,
        "n": 80,
        "k": 2,
        "unit": "group",
        "reason": "too few",
    }
    document = {
        **found,
        "class_names": list(names),
        "warnings": [] if certified else ["The accept rule carries no guarantee: too few."],
        "policy": {"mode": "threshold"},
        "provenance": {"model_sha256": "abc"},
    }
    bundle = {
        "backbone_source": "backbone",
        "policy": {"step": "calibrate", "file": "scrcparams.json"},
        "licence": {"name": "Apache-2.0", "note": EVIL},
    }
    fitted = {
        "method": "temperature_scaling",
        "temperature": 1.3,
        "accept": {"threshold": 0.4},
        "fit": {"status": "ok"},
        "guarantee": guarantee,
        "decision": None,
    }
    shares = dict.fromkeys(ROLES, 0.25)
    splits = {
        "ratios": {"achieved": shares, "target": shares},
        "counts": {role: dict.fromkeys(names, 3) for role in ROLES},
    }
    return document, bundle, fitted, splits, {"rows": 200, "rejected": 1}


def test_the_report_holds_everything_and_refers_to_nothing_outside() -> None:
    html = render_report(*documents())
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", html) and "@import" not in html and "url(http" not in html
    for text in ("Accuracy", "Confusion matrix", "Slices, worst first", "<svg", "certified on 60"):
        assert text in html


def test_names_from_outside_are_escaped() -> None:
    html = render_report(*documents(names=("None", EVIL)))
    assert EVIL not in html and "&lt;script&gt;" in html


def test_equal_numbers_give_equal_bytes() -> None:
    assert render_report(*documents()) == render_report(*documents())


def test_a_rule_without_a_guarantee_promises_nothing() -> None:
    html = render_report(*documents(certified=False))
    assert "with a confidence of" not in html and "carries no guarantee: too few" in html


def test_a_sweep_policy_says_that_it_promises_no_error_rate() -> None:
    document, bundle, _, splits, dataset = documents()
    fitted = {
        "method": "global_threshold",
        "threshold_logodds": 0.4,
        "objective": {"name": "macro_f1"},
        "decision": {"cut": 0.6},
    }
    html = render_report(document, bundle, fitted, splits, dataset)
    assert "it promises no error rate" in html and "shipped at 0.5" in html


def test_numbers_stand_as_they_were_measured() -> None:
    document, *others = documents()
    accuracy = document["metrics"]["accuracy"]
    html = render_report(document, *others)
    assert f"{100 * accuracy['value']:.1f} %" in html
    assert f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" in html


@pytest.mark.parametrize("value", [None])
def test_what_is_not_defined_is_a_dash(value: None) -> None:
    document, *others = documents()
    document["metrics"]["selective_risk"] = {"value": value, "low": None, "high": None}
    assert "<b>–</b>" in render_report(document, *others)
