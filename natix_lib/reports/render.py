"""report.html: one file with nothing outside it, the same bytes for the same numbers.

Class names, tags and licence notes are other people's text and are escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from natix_lib.contracts import ROLES
from natix_lib.decisions.promise import at_prior, clause, is_certified, promise
from natix_lib.files import JsonDict
from natix_lib.reports import charts
from natix_lib.reports.heads import heads_table
from natix_lib.reports.pages import templates

METRICS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "nll": "NLL, nats",
    "brier": "Brier score",
    "ece": "ECE",
    "coverage": "Coverage",
    "selective_risk": "Error rate of the accepted",
    "missed": "Positives accepted as something else",
    "false_alarms": "Something else among those accepted as positive",
    "published": "Accepted as positive",
    "cleared": "Accepted as something else",
    "asked": "Left to a person",
    "set_coverage": "Sets of the accepted that hold the label",
    "set_size": "Classes in a set of the accepted",
    "score_accuracy": "Accuracy of the rounded score",
    "score_mcc": "MCC of the rounded score",
    "label_accuracy": "Accuracy of the label as positive or not",
    "label_mcc": "MCC of the label as positive or not",
}

UPRIGHT_FROM = 3  # more classes than this have their names upright above their columns, so that 13 fit a page
UNIT_SPACE = "\u00a0"  # a number is not parted from its unit at the end of a line

MODES = {
    "threshold": "rejects what is not confident enough",
    "class_thresholds": "rejects what is not confident enough for its class",
    "accept_all": "accepts every image",
    "abstain_all": "accepts no image",
}


def render_report(evaluation: JsonDict, bundle: JsonDict, policy: JsonDict, splits: JsonDict) -> str:
    """The report as HTML.

    Args:
        evaluation: Content of evaluation.json.
        bundle: Content of the bundle's bundle.json.
        policy: The bundle's policy document.
        splits: Content of splits.json.
    """
    metrics = evaluation["metrics"]
    guarantee = policy.get("guarantee")
    pictures = {
        "Reliability": charts.reliability(evaluation["reliability"]),
        "Risk and coverage": charts.risk_coverage(
            evaluation["risk_coverage"],
            metrics["coverage"]["value"],
            metrics["selective_risk"]["value"],
            guarantee["alpha"] if guarantee else None,
        ),
    }
    if evaluation["roc"]:
        pictures["ROC of the binary score"] = charts.roc(evaluation["roc"])
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            evaluation=evaluation,
            metrics=metrics,
            titles=METRICS,
            modes=MODES,
            bundle=bundle,
            policy=policy,
            guarantee=guarantee,
            certified=is_certified(policy),
            promise=promise(policy),
            at_prior=at_prior(policy),
            splits=splits,
            roles=ROLES,
            pictures={title: Markup(svg) for title, svg in pictures.items()},
            policy_pictures=_policy_pictures(policy),
            slices=_worst_first(evaluation["slices"]),
            upright=Markup(' class="upright"') if len(evaluation["class_names"]) > UPRIGHT_FROM else "",
            largest=max(max(row) for row in evaluation["confusion"]) or 1,
            heads=heads_table(bundle.get("grid") or []),
        )
    )


def render_policy(policy: JsonDict) -> str:
    """What sweep or calibrate fitted on VAL_CALIB, as HTML.

    Args:
        policy: Content of thresholds.json or scrcparams.json.
    """
    return (
        environment()
        .get_template("policy.html.j2")
        .render(
            policy=policy,
            guarantee=policy.get("guarantee"),
            certified=is_certified(policy),
            promise=promise(policy),
            at_prior=at_prior(policy),
            clause=clause,
            pictures=_policy_pictures(policy),
        )
    )


def _policy_pictures(policy: JsonDict) -> dict[str, Markup]:
    """The plots of a policy, all of VAL_CALIB."""
    curves = policy["curves"]
    coverage, risk = policy["coverage"], policy["selective_risk"]
    if "guarantee" in policy:
        pictures = {
            "Reliability before": charts.reliability(curves["reliability_before"]),
            "Reliability after the temperature": charts.reliability(curves["reliability_after"]),
            "Risk and coverage of the rows tested": charts.risk_coverage(
                curves["risk_coverage"],
                curves["chosen"]["coverage"],  # of the rows tested, one of each group, as the curve
                curves["chosen"]["risk"],
                policy["guarantee"]["alpha"],
            ),
            "NLL against the temperature": charts.temperature(curves["nll"], policy["temperature"]),
        }
    else:
        pictures = {
            "Coverage and macro-F1": charts.thresholds(curves["threshold"], policy["threshold"]),
            "Risk and coverage": charts.risk_coverage(
                curves["threshold"], coverage, risk, policy["objective"].get("max_risk")
            ),
        }
    pictures["Accepted of each class"] = charts.acceptance(curves["acceptance"])
    return {title: Markup(svg) for title, svg in pictures.items()}


def render_adaptation(
    backbone: JsonDict, adaptation: JsonDict, history: Sequence[Mapping[str, float]], counts: Sequence[int]
) -> str:
    """What adapt did, as HTML.

    Args:
        backbone: Content of backbone.json of the backbone that was adapted.
        adaptation: The part `adaptation` of the new backbone.json.
        history: One row an optimiser step.
        counts: Trained parameters, and all.
    """
    steps = [row["step"] for row in history]
    pictures = {
        name: charts.curve(steps, [row[name] for row in history], "optimiser step", name)
        for name in ("loss", "dino", "ibot", "koleo", "lr", "momentum")
    }
    return (
        environment()
        .get_template("adaptation.html.j2")
        .render(
            backbone=backbone,
            adaptation=adaptation,
            settings=adaptation["settings"],
            history=history,
            counts=counts,
            pictures={title: Markup(svg) for title, svg in pictures.items()},
        )
    )


def environment() -> jinja2.Environment:
    """The templates, with filters for figures."""
    pages = templates()
    pages.filters.update(
        number=_number,
        share=_share,
        interval=_interval,
        interval_share=_interval_share,
        whole_share=_whole_share,
    )
    return pages


def _worst_first(slices: JsonDict) -> list[tuple[str, str, JsonDict]]:
    rows = [(tag, value, part) for tag, values in slices.items() for value, part in values.items()]
    return sorted(rows, key=lambda row: (row[2]["metrics"]["accuracy"]["value"], row[0], row[1]))


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.1f}{UNIT_SPACE}%"


def _whole_share(value: float) -> str:
    return f"{100 * value:.0f}{UNIT_SPACE}%"


def _interval(metric: JsonDict) -> str:
    if metric["low"] is None:
        return ""
    return f"{metric['low']:.3f} to {metric['high']:.3f}"


def _interval_share(metric: JsonDict) -> str:
    if metric["low"] is None:
        return ""
    return f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f}{UNIT_SPACE}%"
