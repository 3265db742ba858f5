import json
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.contracts import ROLES
from natix_lib.decisions import Policy
from natix_lib.evaluation import Scored, evaluate
from natix_lib.reports import charts
from natix_lib.reports.render import render_policy, render_report
from tests.calibration_sets import run_on_set, write_set

pytestmark = pytest.mark.xdist_group("fitted")  # in one process, so that each policy is fitted once
EVIL = "<script>alert('x')</script>"


def tried(lr: float, kept: bool, acc: float, loss: float, **settings: Any) -> dict[str, Any]:
    """A line of a grid's table."""
    head = {"lr": lr, "weight_decay": 1e-4, "dropout_rate": 0.0, "pooling": "cls", **settings, "kept": kept, "epoch": 7}
    select = {"val_select_loss": loss, "val_select_acc": acc, "val_select_macro_f1": acc, "val_select_mcc": 0.8}
    return {**head, "train_loss": 0.1, **select}


GRID = [
    tried(1e-3, True, 0.95, 0.2, pooling=EVIL),
    tried(0.01, False, 0.95, 0.1),
    {"lr": 1e6, "weight_decay": 1e-4, "dropout_rate": 0.2, "pooling": "cls", "kept": False},
    tried(0.1, False, 0.9, 0.05, dropout_rate=0.2),
]


@pytest.fixture(autouse=True, scope="module")
def drawn_once() -> Iterator[None]:
    """The same picture of the same figures is drawn once for all tests of this file."""
    pictures: dict[str, str] = {}

    def once(name: str, draw: Callable[..., str]) -> Callable[..., str]:
        def drawn(*figures: object) -> str:
            key = f"{name} {json.dumps(figures)}"
            if key not in pictures:
                pictures[key] = draw(*figures)
            return pictures[key]

        return drawn

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reliability", "risk_coverage", "roc", "temperature", "thresholds", "acceptance"):
            patch.setattr(charts, name, once(name, getattr(charts, name)))
        yield


def fitted(step: str, names: tuple[str, ...] = ("None", "Roadwork"), **settings: object) -> dict[str, Any]:
    """The policy document that a step fits on 600 images, 4 of each group."""
    document: dict[str, Any] = json.loads(fitted_once(step, names, json.dumps(settings)))
    return document


@cache
def fitted_once(step: str, names: tuple[str, ...], settings_text: str) -> str:
    settings = json.loads(settings_text)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_set(Path(folder), strength=4.0, frames=4, names=names)
        section = {"sweep": settings} if step == "sweep" else {"scrc": {"alpha": 0.1, "bootstrap": 50, **settings}}
        return json.dumps(run_on_set(step, section, Path(folder), paths))


def documents(names: tuple[str, ...] = ("None", "Roadwork"), step: str = "calibrate", **settings: object) -> list[Any]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(names), 200)
    logits = generator.normal(0, 1, (200, len(names)))
    logits[np.arange(200), labels] += 2
    document = fitted(step, names, **settings)
    policy = Policy.from_document(document)
    scored = Scored(labels, (np.arange(200) // 4).astype(str), policy.apply(logits), policy.positive_mask())
    figures = evaluate(scored, names, {"city": ["Arden", EVIL] * 100}, 100, 0.95, 0, 20)
    evaluation = {
        **figures,
        "class_names": list(names),
        "ingested": {"rows": 200, "rejected": 1, "warnings": []},
        "warnings": ["The accept rule carries no guarantee: too few."],
        "policy": {"mode": policy.mode},
        "provenance": {"model_sha256": "abc"},
    }
    bundle = {
        "backbone_source": "backbone",
        "policy": {"step": step, "file": "policy.json"},
        "licence": {"name": "Apache-2.0", "note": EVIL},
        "grid": GRID,
    }
    shares = dict.fromkeys(ROLES, 0.25)
    splits = {
        "ratios": {"achieved": shares, "target": shares},
        "counts": {role: dict.fromkeys(names, 3) for role in ROLES},
    }
    return [evaluation, bundle, document, splits]


def test_the_report_holds_everything_and_refers_to_nothing_outside() -> None:
    html = render_report(*documents())
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", html) and "@import" not in html and "url(http" not in html
    for text in ("Accuracy", "Confusion matrix", "Slices, worst first", "<svg", "certified on 150"):
        assert text in html


def test_names_from_outside_are_escaped() -> None:
    html = render_report(*documents(names=("None", EVIL)))
    assert EVIL not in html and "&lt;script&gt;" in html


@pytest.mark.slow
def test_equal_numbers_give_equal_bytes() -> None:
    assert render_report(*documents()) == render_report(*documents())


def test_a_rule_without_a_guarantee_promises_nothing() -> None:
    html = render_report(*documents(alpha=0.001, on_infeasible="empirical"))
    assert "with a confidence of" not in html and "carries no guarantee: too few" in html


def test_a_sweep_policy_says_that_it_promises_no_error_rate() -> None:
    evaluation, bundle, policy, *others = documents(step="sweep")
    policy["decision"] = {"cut": 0.7, "cut_logodds": 0.85}
    html = render_report(evaluation, bundle, policy, *others)
    assert "it promises no error rate" in html and "shipped at 0.5" in html


def test_prediction_sets_are_shown_with_what_they_promise() -> None:
    evaluation, *others = documents(sets="pac", sets_alpha=0.1)
    assert evaluation["metrics"]["set_coverage"]["value"] > 0.8
    html = render_report(evaluation, *others)
    assert "Sets of the accepted that hold the label" in html and "with confidence 1 - delta" in html


@pytest.mark.parametrize(
    ("step", "pictures"),
    [
        (
            "calibrate",
            ["Reliability before", "Reliability after", "Risk and coverage", "NLL against", "Accepted of each class"],
        ),
        ("sweep", ["Coverage and macro-F1", "Risk and coverage", "Accepted of each class"]),
    ],
)
def test_the_plots_of_a_policy_stand_in_its_own_page_and_in_the_report(step: str, pictures: list[str]) -> None:
    document = fitted(step)
    for html in (render_policy(document), render_report(*documents(step=step))):
        for title in pictures:
            assert f"<figcaption>{title}" in html
    page = render_policy(document)
    assert page == render_policy(document) and page.count("<svg") == len(pictures) and "http://www.w3.org" in page


def test_the_page_of_many_classes_shows_those_that_are_there() -> None:
    names = tuple(f"class {i}" for i in range(13))
    html = render_policy(fitted("calibrate", names, alpha=0.3))
    assert "class 12" in html and "Certified: of the accepted at most 30.0\u00a0%" in html


def test_a_rule_that_is_not_certified_says_why_on_its_page() -> None:
    html = render_policy(fitted("calibrate", alpha=0.001, on_infeasible="abstain"))
    assert "carries no guarantee: needs at least" in html


def test_numbers_stand_as_they_were_measured() -> None:
    document, *others = documents()
    accuracy = document["metrics"]["accuracy"]
    html = render_report(document, *others)
    assert f"{100 * accuracy['value']:.1f}\u00a0%" in html
    assert f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" in html


def test_what_is_not_defined_is_a_dash() -> None:
    document, *others = documents()
    document["metrics"]["selective_risk"] = {"value": None, "low": None, "high": None}
    assert "<b>–</b>" in render_report(document, *others)


def test_the_policy_lies_on_the_curves_that_it_is_drawn_on() -> None:
    calibrated, swept = fitted("calibrate", alpha=0.03), fitted("sweep", objective="coverage_at_risk", max_risk=0.02)
    evaluation, *_ = documents(step="sweep", objective="coverage_at_risk", max_risk=0.02)
    metrics = evaluation["metrics"]
    for points, coverage, risk in (
        (calibrated["curves"]["risk_coverage"], *calibrated["curves"]["chosen"].values()),
        (swept["curves"]["threshold"], swept["coverage"], swept["selective_risk"]),
        (evaluation["risk_coverage"], metrics["coverage"]["value"], metrics["selective_risk"]["value"]),
    ):
        assert 0 < coverage <= 1 and (coverage, risk) in [(point["coverage"], point["risk"]) for point in points]


def test_warnings_stand_before_the_figures() -> None:
    html = render_report(*documents())
    assert html.index("<h1>") < html.index("carries no guarantee: too few") < html.index("accuracy<b>")


@pytest.mark.parametrize("step", ["sweep", "calibrate"])
def test_no_number_is_parted_from_its_percent_sign(step: str) -> None:
    document, *others = documents(step=step)
    document["warnings"] = []
    for html in (render_report(document, *others), render_policy(others[1])):
        assert re.search(r"\d\u00a0%", html) and not re.search(r"\d\s*[ \n]\s*%", html)
