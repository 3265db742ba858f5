"""calibrate: VAL_CALIB logits, VAL_SELECT's where given -> scrcparams.json, temperature, accept rule and guarantee."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from natix_lib import config
from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.config.step_settings import CalibrateSettings
from natix_lib.contracts import VAL_CALIB, VAL_SELECT
from natix_lib.decisions import Policy, fit_prediction_sets
from natix_lib.decisions.calibration import Calibration, Rows, calibrate
from natix_lib.decisions.deployment import (
    Deployment,
    drawn_at_prior,
    fit_deployment,
    take,
    terms_at_prior,
    with_positives,
)
from natix_lib.decisions.judgement import Judgement, bounded_curve, change_intervals, judge_probabilities, nll_around
from natix_lib.decisions.observed import observe
from natix_lib.decisions.policy import CALIBRATE_METHOD, SETS_SCORE, Decisions
from natix_lib.decisions.promise import is_certified, promise
from natix_lib.decisions.score import has_binary_score, softmax
from natix_lib.decisions.sets import PAC
from natix_lib.decisions.slices import Slice
from natix_lib.decisions.sweep import constant_prediction
from natix_lib.decisions.temperature import negative_log_likelihood
from natix_lib.errors import CalibrationError, ContractError
from natix_lib.files import JsonDict, write_bytes, write_json
from natix_lib.logits import CalibrationSet, read_pair, read_select
from natix_lib.progress import WARNING, Lines
from natix_lib.reports.render import render_policy
from natix_lib.steps.certifiable import terms_of
from natix_lib.steps.policies import acceptance, document_of, naming_keys, provenance, tuned_cut, write_curve


def run(
    settings: Mapping[str, Any],
    *,
    val_calib_logits: str,
    val_calib_labels: str,
    scrcparams: str,
    scrc_curve: str,
    calibration_report: str,
    val_select_logits: str = "",
    val_select_labels: str = "",
) -> dict[str, float]:
    """Fit the temperature and certify the accept rule.

    Args:
        settings: What calibrate reads of the config: the keys of `CalibrateSettings`.
        val_calib_logits: File with the logits of VAL_CALIB.
        val_calib_labels: File with the labels of the same images.
        scrcparams: Path to write scrcparams.json to.
        scrc_curve: Path to write the whole curve to, as Parquet.
        calibration_report: Path to write the policy's page to, as HTML.
        val_select_logits: File with the logits of VAL_SELECT, of the same weights; "" where there are none.
        val_select_labels: File with the labels of the same images; "" where there are none.

    Returns:
        Temperature, coverage and risk on VAL_CALIB, whether the rule is certified, and NLL and ECE before and after; of
        its rows drawn as frequent as in use where `scrc.prior` says how frequent that is.

    Raises:
        NatixError: If the files do not belong together, or nothing is certified and `scrc.on_infeasible` is `fail`.
    """
    scrc = config.parse(CalibrateSettings, settings).scrc
    whole = read_pair(val_calib_logits, val_calib_labels)
    select = read_select(val_select_logits, val_select_labels, whole)
    names, positive = tuple(whole.class_names), tuple(whole.positive_classes)
    mask = Policy(names, positive).positive_mask()
    with naming_keys("scrc", "alpha", "delta", "on_infeasible", "misses", "false_alarms", "slices", "prior"):
        slices = _slices(whole, scrc)
        rows, other, deployment, drawn = _rows_of(whole, select, mask, scrc.prior, slices)
        terms = terms_of(scrc, slices)
        calibration = calibrate(rows, terms if deployment is None else terms_at_prior(terms), other, mask)
    data = whole if deployment is None else _drawn(whole, drawn, deployment)
    fit, certificate, ranking = calibration.fit, calibration.certificate, calibration.ranking
    cut, trial = tuned_cut(data, fit.temperature, scrc.tune_cut)
    policy = Policy(
        class_names=names,
        positive_classes=positive,
        method=CALIBRATE_METHOD,
        mode=calibration.mode,
        threshold=calibration.threshold,
        temperature=fit.temperature,
        cut=None if cut is None else cut.logodds,
        class_thresholds=None if calibration.class_thresholds is None else tuple(calibration.class_thresholds.tolist()),
        bias=None if deployment is None else tuple(deployment.bias.tolist()),
    )
    decisions = policy.apply(whole.logits[drawn])
    accepted, wrong = decisions.accepted, decisions.prediction != data.labels
    before, after = (
        judge_probabilities(
            probabilities,
            negative_log_likelihood(data.logits, data.labels, temperature),
            decisions.prediction,
            data.labels,
            scrc.bootstrap,
        )
        for probabilities, temperature in ((softmax(data.logits), 1.0), (decisions.probabilities, fit.temperature))
    )
    nll_interval, brier_interval = change_intervals(before, after, data.groups, scrc.bootstrap)
    risk = float(wrong[accepted].mean()) if accepted.any() else None
    tested_accepted = accepted[calibration.tested]
    temperatures, nlls = nll_around(data.logits, data.labels, fit.temperature)
    curve = bounded_curve(ranking, certificate.delta_spent, int(tested_accepted.sum()))
    constant = constant_prediction(decisions.prediction, names, f"images of {VAL_CALIB}")
    document = {
        **document_of(policy, cut, trial),
        "calibration_loss": fit.nll,
        "sets": _sets(data, decisions, ~calibration.seen, scrc),
        "guarantee": _guarantee(calibration, scrc, select is not None, names),
        "fit": {"status": fit.status, "reason": fit.reason, "passes": fit.passes, "gradient": fit.gradient},
        "n": len(data.labels),
        "coverage": float(accepted.mean()),
        "selective_risk": risk,
        "observed": asdict(
            observe(decisions.prediction, data.labels, accepted, policy.positive_mask(), data.groups, scrc.bootstrap)
        ),
        "metrics": {
            "before": _figures(before),
            "after": _figures(after),
            "intervals": {"nll_difference": nll_interval, "brier_difference": brier_interval},
        },
        "curves": {
            "reliability_before": before.ece.reliability,
            "reliability_after": after.ece.reliability,
            "risk_coverage": _points(coverage=curve.coverage, risk=curve.risk, bound=curve.bound),
            "chosen": {
                "coverage": float(tested_accepted.mean()),
                "risk": float(wrong[calibration.tested][tested_accepted].mean()) if tested_accepted.any() else None,
            },
            "nll": _points(temperature=temperatures, nll=nlls),
            "acceptance": acceptance(data, accepted),
        },
        **_prior(deployment, whole, drawn, names),
        **({"warning": constant} if constant else {}),
        "provenance": {**provenance(whole), "val_select_logits_sha256": select.logits_sha256 if select else None},
    }
    write_curve(
        scrc_curve,
        {
            "threshold_logodds": ranking.thresholds,
            "accepted": ranking.ends,
            "coverage": ranking.ends / ranking.ends[-1],
            "selective_risk": ranking.errors / ranking.ends,
        },
    )
    write_bytes(calibration_report, render_policy(document).encode())
    write_json(scrcparams, document)
    if not is_certified(document):
        Lines().say(f"{WARNING}{promise(document)}")
    if constant:
        Lines().say(f"{WARNING}{constant}")
    return {
        "temperature": fit.temperature,
        "coverage": float(accepted.mean()),
        **({} if risk is None else {"selective_risk": risk}),
        "certified": float(is_certified(document)),
        "nll_before": float(before.nll.mean()),
        "nll_after": float(after.nll.mean()),
        "ece_before": before.ece.value,
        "ece_after": after.ece.value,
    }


def _rows_of(
    data: CalibrationSet,
    select: CalibrationSet | None,
    positive: Bools,
    shares: Mapping[str, float],
    slices: Sequence[Slice],
) -> tuple[Rows, Rows | None, Deployment | None, Ints | slice]:
    """Rows to fit on, VAL_SELECT's, the deployment prior if there is one, and which of the images the rows are."""
    rows, other = _rows(data, slices), None if select is None else _rows(select, slices)
    if not shares:
        return rows, other, None, slice(None)
    if other is None:
        raise CalibrationError(f"prior needs the logits and labels of {VAL_SELECT}, which this run does not have")
    deployment = fit_deployment(shares, data.class_names, other)
    given, drawn = [], []
    for each, role in ((rows, VAL_CALIB), (other, VAL_SELECT)):
        drawn.append(drawn_at_prior(each, data.class_names, deployment, role))
        some = take(each, drawn[-1])
        given.append(with_positives(some, each, positive, deployment) if has_binary_score(positive) else some)
    return deployment.shifted(given[0]), deployment.shifted(given[1]), deployment, drawn[0]


def _drawn(data: CalibrationSet, rows: Ints | slice, deployment: Deployment) -> CalibrationSet:
    """The images that are as frequent as in use, with the bias in their logits."""
    groups = None if data.groups is None else data.groups[rows]
    return replace(data, logits=data.logits[rows] + deployment.bias, labels=data.labels[rows], groups=groups)


def _prior(deployment: Deployment | None, whole: CalibrationSet, drawn: Ints | slice, names: Sequence[str]) -> JsonDict:
    """What the policy's file says of the deployment prior; nothing where there is none."""
    if deployment is None:
        return {}
    unshifted = negative_log_likelihood(whole.logits[drawn], whole.labels[drawn], deployment.temperature)
    figures = {"images": len(whole.labels), "drawn": len(unshifted), "nll_without": float(unshifted.mean())}
    return {"prior": {**deployment.document(names), **figures}}


def _slices(data: CalibrationSet, scrc: config.Scrc) -> list[Slice]:
    """The slices of which something is to be promised."""
    if scrc.per_slice == 1:
        return []
    if data.tags is None:
        raise ContractError(
            f"the labels of VAL_CALIB have no tags, and scrc.slices asks for {scrc.slices[0]}: train writes them anew"
        )
    return data.tags.slices(scrc.slices)


def _rows(data: CalibrationSet, slices: Sequence[Slice]) -> Rows:
    masks = {} if data.tags is None else {each: data.tags.mask(each) for each in slices}
    return Rows(data.logits, data.labels, data.groups, masks)


def _guarantee(calibration: Calibration, scrc: config.Scrc, has_start: bool, names: Sequence[str]) -> JsonDict:
    certificate, promises = calibration.certificate, calibration.promises
    return {
        "kind": "selective_risk",
        "procedure": "band and chain" if has_start and not promises else "band",
        "alpha": scrc.alpha,
        "delta": scrc.delta,
        "n": certificate.n,
        "m": certificate.accepted,
        "k": certificate.errors,
        "upper_bound": certificate.upper_bound,
        "certified": certificate.certified,
        "unit": certificate.unit,
        "reason": certificate.reason,
        "promises": [
            {
                "kind": kept.asked.kind,
                "of_class": None if kept.asked.of_class is None else names[kept.asked.of_class],
                "of_slice": None if kept.asked.of_slice is None else kept.asked.of_slice._asdict(),
                "alpha": kept.asked.alpha,
                "certified": kept.certified,
                "unit": kept.unit,
                "n": kept.n,
                "m": kept.m,
                "k": kept.k,
                "upper_bound": kept.upper_bound,
                "reason": kept.reason,
            }
            for kept in promises
        ],
    }


def _sets(data: CalibrationSet, decisions: Decisions, rows: Bools, scrc: config.Scrc) -> JsonDict | None:
    """The prediction sets, fitted on the half that nothing else has seen."""
    if scrc.sets == "none":
        return None
    sets = fit_prediction_sets(
        decisions.probabilities[rows],
        data.labels[rows],
        decisions.accepted[rows],
        scrc.sets_alpha,
        scrc.delta,
        None if data.groups is None else data.groups[rows],
        scrc.sets,
    )
    return {
        "score": SETS_SCORE,
        "threshold": sets.threshold,
        "procedure": sets.procedure,
        "alpha": scrc.sets_alpha,
        "delta": scrc.delta if sets.procedure == PAC else None,
        "m": sets.m,
        "k": sets.k,
        "upper_bound": sets.upper_bound,
        "certified": sets.certified,
        "unit": sets.unit,
        "reason": sets.reason,
        "promise": sets.promise,
    }


def _figures(judgement: Judgement) -> JsonDict:
    return {
        "nll": float(judgement.nll.mean()),
        "brier": float(judgement.brier.mean()),
        "ece": judgement.ece.value,
        "ece_null_mean": judgement.ece.null_mean,
        "ece_null_high": judgement.ece.null_high,
        "ece_p_value": judgement.ece.p_value,
        "ece_equal_mass": judgement.ece_equal_mass,
        "ece_classwise": judgement.ece_classwise,
    }


def _points(**columns: Floats) -> list[JsonDict]:
    """A curve as JSON, one object a point."""
    values = (column.tolist() for column in columns.values())
    return [dict(zip(columns, point, strict=True)) for point in zip(*values, strict=True)]
