"""evaluate: TEST, once, through the bundle -> evaluation.json and report.html; onnxruntime, no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from natix_lib import config
from natix_lib.bundle.runtime import Bundle
from natix_lib.config.step_settings import EvaluateSettings
from natix_lib.contracts import SCHEMA_VERSION, TEST, require_same
from natix_lib.data.sets import open_set
from natix_lib.decisions.intervals import LEAST_GROUPS
from natix_lib.decisions.policy import ABSTAIN_ALL
from natix_lib.decisions.promise import is_certified, promise
from natix_lib.evaluation import Scored, at_prior, promised_slices
from natix_lib.evaluation import evaluate as measure
from natix_lib.files import JsonDict, write_bytes, write_json
from natix_lib.progress import Lines
from natix_lib.reports.render import render_report
from natix_lib.steps.shown import show_metrics


def run(
    settings: Mapping[str, Any], *, test_set: str, bundle: str, evaluation: str, report: str, classification: Any = None
) -> dict[str, float]:
    """Evaluate a bundle on TEST.

    Args:
        settings: What evaluate reads of the config: the keys of `EvaluateSettings`.
        test_set: Folder with the set of TEST.
        bundle: Folder of the bundle to evaluate.
        evaluation: Path to write evaluation.json to.
        report: Path to write the report to, as HTML.
        classification: KFP ClassificationMetrics that receive the confusion matrix and the ROC; None outside KFP.

    Returns:
        Every metric that is defined, the images, and the majority class's accuracy.

    Raises:
        NatixError: If the bundle is altered, or was made from other splits or data.
    """
    section = config.parse(EvaluateSettings, settings).evaluate
    loaded = Bundle.load(bundle)
    test = open_set(test_set, TEST)
    provenance = loaded.manifest["provenance"]
    for key in ("splits_sha256", "dataset_fingerprint"):
        require_same(key, provenance[key], "bundle", getattr(test, key), "test_set")
    require_same("class_names", loaded.class_names, "bundle", test.class_names, "test_set")
    lines = Lines()
    logits = loaded.logits(
        (test.image(i) for i in range(len(test))), progress=lambda done: lines.progress("TEST images", done, len(test))
    )
    decisions = loaded.policy.apply(logits)
    scored = Scored(test.labels, np.array(test.groups), decisions, loaded.policy.positive_mask())
    figures = measure(
        scored,
        test.class_names,
        test.tags(),
        section.bootstrap,
        section.confidence,
        section.seed,
        section.min_slice,
    )
    policy, splits = loaded.documents.policy, loaded.documents.splits
    promises = (policy.get("guarantee") or {}).get("promises") or []
    slices = promised_slices(scored, test.all_tags(), promises, section.bootstrap, section.confidence, section.seed)
    document: JsonDict = {
        **figures,
        "promised_slices": slices,
        "artifact": "evaluation",
        "schema_version": SCHEMA_VERSION,
        "class_names": test.class_names,
        "ingested": test.ingested,
        "positive_classes": test.positive_classes,
        "warnings": [
            *splits["warnings"],  # of leaks: what makes every figure doubtful comes first
            *_policy_warnings(scored, loaded.policy.mode, policy),
            *test.ingested["warnings"],
            *_warnings(scored, figures),
        ],
        "policy": {
            **loaded.manifest["policy"],
            "certified": is_certified(policy),
            "promise": loaded.promise,
            "mode": loaded.policy.mode,
            "guarantee": policy.get("guarantee"),
        },
        "provenance": {**provenance, "bundle_sha256": loaded.documents.sha256},
    }
    if policy.get("prior"):
        prior = np.array([policy["prior"]["shares"][name] for name in test.class_names])
        weighted = at_prior(scored, prior, section.bootstrap, section.confidence, section.seed)
        document["deployment"] = {"prior": policy["prior"]["shares"], "metrics": weighted}
    html = render_report(document, loaded.manifest, policy, splits)
    write_bytes(report, html.encode())
    write_json(evaluation, document)
    if classification is not None:
        _show(document, classification)
    values = {name: metric["value"] for name, metric in figures["metrics"].items() if metric["value"] is not None}
    return {"images": len(test), **values, "majority_accuracy": figures["baseline"]["accuracy"]["value"]}


def _policy_warnings(scored: Scored, mode: str, policy: JsonDict) -> list[str]:
    """What stands before all others: that nothing is accepted, and that what was to be certified is not."""
    warnings = []
    if not scored.decisions.accepted.any():
        what = "nothing" if mode == ABSTAIN_ALL else "no TEST image"
        warnings.append(f"The policy accepts {what}: every prediction is left to a person.")
    if "guarantee" in policy and not is_certified(policy):
        warnings.append(f"The policy is {promise(policy)}.")
    return warnings


def _warnings(scored: Scored, figures: JsonDict) -> list[str]:
    """What a reader must not overlook."""
    warnings = []
    loss, metrics = figures["score_loss"], figures["metrics"]
    if (
        loss
        and loss["low"] is not None
        and loss["low"] > 0 >= metrics["score_mcc"]["value"] - metrics["label_mcc"]["value"]
    ):
        warnings.append(
            "Do not round the score: it says positive or not rightly of "
            f"{metrics['score_accuracy']['value']:.1%} of the TEST images, the label of "
            f"{metrics['label_accuracy']['value']:.1%}, and that is more than chance."
        )
    prediction = scored.decisions.prediction
    if (prediction == prediction[0]).all():
        warnings.append("The model says the same class for every TEST image.")
    gain = figures["baseline"]["gain"]["low"]
    if gain is not None and gain <= 0:
        warnings.append("The accuracy does not exceed the majority class by more than chance.")
    if figures["groups"] < LEAST_GROUPS:
        warnings.append(
            f"TEST has {figures['groups']} groups: too few for intervals but of shares, which are wide for that reason."
        )
    return warnings


def _show(document: JsonDict, classification: Any) -> None:
    """Log the confusion matrix and the ROC of an evaluation to KFP ClassificationMetrics."""
    classification.log_confusion_matrix(document["class_names"], document["confusion"])
    if document["roc"]:
        columns = ([point[key] for point in document["roc"]] for key in ("fpr", "tpr", "threshold"))
        classification.log_roc_curve(*columns)
    show_metrics(classification, {})
