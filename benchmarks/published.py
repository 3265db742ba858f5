"""What a person is told with each promise: published, cleared, asked, and how much of that is wrong, on TEST.

Trucks among CIFAR-10, a tenth of the images, by a head of `benchmarks.prior`: natix's head on random features, trained
by natix's loop with balanced weights that are taken back on VAL_SELECT. Each rule is certified on the same 3,000 images
of VAL_CALIB and judged on the rest, once, with 95 % intervals. Data: NATIX_TEST_DATA. Run: `make bench-prior`.
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.prior import CALIB, trucks
from natix_lib.decisions.calibration import Rows, Terms, calibrate
from natix_lib.decisions.joint import OVERALL
from natix_lib.decisions.policy import Policy
from natix_lib.decisions.prior import fit_prior_shift
from natix_lib.evaluation import Scored, metrics

SELECT, RESAMPLES, SEED = 2_000, 2_000, 0
POSITIVE = np.array([False, True])
RULES = {
    "alpha .05": Terms(0.05, 0.1),
    "alpha .05, misses .4, false alarms .4": Terms(0.05, 0.1, misses=0.4, false_alarms=0.4),
    "alpha .05, misses .2, false alarms .2": Terms(0.05, 0.1, misses=0.2, false_alarms=0.2),
    "alpha .05, misses .1, false alarms .2": Terms(0.05, 0.1, misses=0.1, false_alarms=0.2),
}
FIGURES = ("published", "false_alarms", "cleared", "missed", "asked")


def main() -> None:
    rows, weights = trucks(SEED)
    order = np.random.default_rng(SEED).permutation(len(rows.labels))
    select, calib, test = rows[order[:SELECT]], rows[order[SELECT : SELECT + CALIB]], rows[order[SELECT + CALIB :]]
    shift = fit_prior_shift(select.weighted, select.labels, weights).shift
    chosen = Rows(select.weighted + shift, select.labels)
    title = f"CIFAR trucks, {len(test.labels):,} images of TEST, {test.labels.mean():.3f} of them trucks"
    heads = ("published", "wrong of them", "cleared", "missed of the trucks", "asked", "certified")
    table = Table("", *heads, title=title)
    for name, terms in RULES.items():
        calibration = calibrate(Rows(calib.weighted + shift, calib.labels), terms, chosen, POSITIVE)
        by_class = calibration.class_thresholds
        policy = Policy(
            ("other", "truck"), ("truck",), calibration.mode, calibration.threshold, calibration.fit.temperature,
            class_thresholds=None if by_class is None else tuple(map(float, by_class)),
        )  # fmt: skip
        decisions = policy.apply(test.weighted + shift)
        groups = np.arange(len(test.labels)).astype(str)
        shares = metrics(Scored(test.labels, groups, decisions, POSITIVE), RESAMPLES, 0.95, SEED)
        cells = []
        for figure in FIGURES:
            value, low, high = (shares[figure][key] for key in ("value", "low", "high"))
            cells.append("none" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]")
        cells.append("")
        bounds = {each.asked.kind: each.upper_bound for each in calibration.promises}
        for kind, bound in (bounds or {OVERALL: calibration.certificate.upper_bound}).items():
            cells[-1] += f"{kind} {'none' if bound is None else f'<= {bound:.3f}'}\n"
        table.add_row(name, *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
