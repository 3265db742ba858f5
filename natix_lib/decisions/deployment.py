"""Classes as frequent in use as they are there, where the labelled images hold others: the deployment prior.

Labelled sets are richer in what is rare than a camera is. Where only that differs (label shift: images of a class look
the same), p(x | y) stays and the posterior moves by a known factor, prior / share (Saerens et al. 2002):

- **The logits** get a bias for each class, T log(prior / share), before label, score, rule and probabilities. A
  network's logits are T times the log-odds, so T and the shares are those of VAL_SELECT, and the rule is fixed without
  a look at the labels that test it.
- **The rows** that temperature, rule, cut and figures are fitted on are drawn by class from VAL_CALIB as frequent as in
  use (`draws.rows_at_prior`, where the proof stands), so that everything that holds of iid rows holds of the deployment
  prior. Misses speak of positive images alone, whose law the prior of the others does not touch: they count all of
  them, drawn at the prior among the positive classes.

In `make bench-prior` this bias certifies what exact log-odds do. Rejected: log(prior / share) without T, which loses
where logits are too steep; a temperature and a bias found by a likelihood weighted by prior / share, which is better
nowhere by .001 of NLL and moves with the few rows of a rare class; the shares of VAL_CALIB, because then the labels
that test the rule move it. A prior that is wrong is not seen here: the promise says which prior it holds for.

References: Saerens, Latinne & Decaestecker (2002), Adjusting the Outputs of a Classifier to New a Priori Probabilities,
Neural Computation 14(1); Podkopaev & Ramdas (2021), Distribution-free uncertainty quantification for classification
under label shift, UAI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.contracts import VAL_SELECT
from natix_lib.decisions.calibration import Rows, Terms
from natix_lib.decisions.draws import MISFIT, independent_rows, rows_at_prior
from natix_lib.decisions.score import Logits, check_groups, check_labels, check_logits
from natix_lib.decisions.temperature import fit_temperature
from natix_lib.errors import CalibrationError
from natix_lib.files import JsonDict

ROUNDING = 1e-6  # of shares that a person writes down and that sum to 1


@dataclass(frozen=True)
class Deployment:
    """What is added to logits so that they speak of the classes as frequent as in use.

    Attributes:
        prior: Share of each class in use, above 0, summing to 1, (C,).
        shares: The same on VAL_SELECT, (C,).
        temperature: T of VAL_SELECT.
        bias: Added to the logits of each class, (C,), summing to 0.
        images: Rows that `shares` and T are of.
    """

    prior: Floats
    shares: Floats
    temperature: float
    bias: Floats
    images: int

    def shifted(self, rows: Rows) -> Rows:
        """Rows with the bias added to their logits."""
        positives = None if rows.positives is None else self.shifted(rows.positives)
        return replace(rows, logits=np.asarray(rows.logits) + self.bias, positives=positives)

    def document(self, names: Sequence[str]) -> JsonDict:
        """What the policy's file says of it."""
        return {
            "shares": dict(zip(names, self.prior.tolist(), strict=True)),
            "shares_before": dict(zip(names, self.shares.tolist(), strict=True)),
            "fitted_on": {"role": VAL_SELECT, "images": self.images},
            "temperature": self.temperature,
        }


def fit_deployment(shares: Mapping[str, float], names: Sequence[str], select: Rows) -> Deployment:
    """The bias of each class for a deployment prior.

    Args:
        shares: Share of classes in use, by name, above 0; what they leave of 1 goes to the classes that are not named,
            in proportion to their images in `select`.
        names: Name of each class, C.
        select: Logits and labels of VAL_SELECT, with every class.

    Raises:
        CalibrationError: If a name or a share breaks its rule, or a class has no row.
    """
    check_shares(shares, names)
    values = check_logits(select.logits)
    truth = check_labels(select.labels, *values.shape)
    counts = np.bincount(truth, minlength=values.shape[1])
    _require_all(counts, names, VAL_SELECT)
    given = np.array([shares.get(name, 0.0) for name in names])
    rest = np.where(given > 0, 0, counts)
    prior = given + (1 - given.sum()) * rest / rest.sum() if rest.any() else given / given.sum()
    temperature = fit_temperature(values, truth, select.groups).temperature
    bias = temperature * np.log(prior / (counts / len(truth)))
    return Deployment(prior, counts / len(truth), temperature, bias - bias.mean(), len(truth))


def check_shares(shares: Mapping[str, float], names: Sequence[str]) -> None:
    """Refuse shares that are no prior of these classes.

    Raises:
        CalibrationError: Naming the class, or the sum.
    """
    for name, share in shares.items():
        if name not in names:
            raise CalibrationError(f"prior must name classes of {', '.join(names)}, got {name!r}")
        if not 0 < share < 1:
            raise CalibrationError(f"prior of {name} must be in (0, 1), got {share}")
    total, named = sum(shares.values()), len(shares) == len(names)
    if named and abs(total - 1) > ROUNDING:
        raise CalibrationError(f"prior must sum to 1 where it names all classes, got {total:g}")
    if not named and total >= 1:
        raise CalibrationError(f"prior must leave a share to the classes that it does not name, got the sum {total:g}")


def drawn_at_prior(rows: Rows, names: Sequence[str], deployment: Deployment, role: str) -> Ints:
    """The rows that are as frequent as in use and independent, one of each group where there are groups; rising.

    Raises:
        CalibrationError: If a class has no row to draw, with the role that they are of.
    """
    values = check_logits(rows.logits)
    truth = check_labels(rows.labels, *values.shape)
    return independent_at_prior(values, truth, rows.groups, deployment.prior, (names, role))


def with_positives(drawn: Rows, rows: Rows, positive: Bools, deployment: Deployment) -> Rows:
    """The drawn rows, and beside them the positives of all rows, on which misses are counted.

    Args:
        drawn: Rows at the prior.
        rows: All of them.
        positive: Which classes are positive, (C,), not all of them.
        deployment: The prior.
    """
    truth = np.asarray(rows.labels)
    places = np.flatnonzero(positive[truth])
    if not len(places):
        return drawn
    groups = None if rows.groups is None else np.asarray(rows.groups)[places]
    among = np.where(positive, deployment.prior, 0.0)
    logits = check_logits(rows.logits)
    chosen = places[independent_at_prior(logits[places], truth[places], groups, among / among.sum())]
    return replace(drawn, positives=take(rows, chosen))


def take(rows: Rows, chosen: Ints) -> Rows:
    """Some of the rows."""
    groups = None if rows.groups is None else np.asarray(rows.groups)[chosen]
    slices = {each: np.asarray(mask)[chosen] for each, mask in rows.slices.items()}
    return Rows(np.asarray(rows.logits)[chosen], np.asarray(rows.labels)[chosen], groups, slices)


def terms_at_prior(terms: Terms) -> Terms:
    """Terms whose delta, spent on drawn rows, is kept as it stands in `terms`."""
    return replace(terms, delta=(1 - MISFIT) * terms.delta)


def independent_at_prior(
    values: Logits,
    truth: Ints,
    groups: ArrayLike | None,
    prior: Floats,
    said: tuple[Sequence[str], str] | None = None,
) -> Ints:
    """Rows, rising, that are as frequent as a prior says, one of each group where there are groups.

    Args:
        values: Logits, (n, C).
        truth: Class number of each row, in 0..C-1, (n,).
        groups: Group of each row, (n,); None takes rows as independent.
        prior: Share of each class, (C,).
        said: Names of the classes and the role of the rows, for an error; then every class must have a row.

    Raises:
        CalibrationError: If a class has no row to draw.
    """
    group = None if groups is None else check_groups(groups, len(truth))
    alone = np.arange(len(truth))[independent_rows(group, values, truth)[0]]
    if said is not None:
        _require_all(np.bincount(truth[alone], minlength=len(prior)), *said)
    result: Ints = alone[rows_at_prior(truth[alone], prior, values[alone])]
    return result


def _require_all(counts: Ints, names: Sequence[str], role: str) -> None:
    if not counts.all():
        name = names[int(counts.argmin())]
        raise CalibrationError(f"prior needs an independent image of every class in {role}, {name} has none")
