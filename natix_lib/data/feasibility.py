"""Whether any division gives every split enough images of every class: the exact answer of HiGHS, and its proof.

Local search finds a division in almost every case; where it does not, an error would be a guess. The integer programme
asks for the division that lacks the fewest images, so one solution says whether there is one, gives it, or tells what
is missing where. Only counts up to the minimum matter to it, and groups that are then alike are one variable, so that
a million groups are a handful.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag, csr_array, hstack, kron

from natix_lib.arrays import Ints

SECONDS = 20.0  # of the solver; the refusal says when it was not enough


@dataclass(frozen=True)
class Fewest:
    """The division that lacks the fewest images.

    Attributes:
        roles: Role of each group, (G,); None when none was found in time.
        lacking: Images of each role and class that it lacks, (R, C).
        proven: Whether no division lacks fewer, or none lacks nothing.
    """

    roles: Ints | None
    lacking: Ints
    proven: bool


def fewest_lacking(counts: Ints, fixed: Ints, least: int, seconds: float = SECONDS) -> Fewest:
    """Divide whole groups so that as few images as possible lack to `least` of every class in every role.

    Args:
        counts: Images that a group brings to a role, (R, G, C).
        fixed: Images that a role already holds, (R, C).
        least: Images of every class that every role must have.
        seconds: Time that the solver may take, in seconds.
    """
    many, groups, classes = counts.shape
    capped = np.minimum(counts, least).transpose(1, 0, 2).reshape(groups, -1)
    types, type_of, size = np.unique(capped, axis=0, return_inverse=True, return_counts=True)
    brought = types.reshape(len(types), many, classes)
    variables = len(types) * many  # x[type, role], then lacking[role, class]
    once = hstack([kron(csr_array(np.eye(len(types))), np.ones((1, many))), csr_array((len(types), many * classes))])
    by_role = block_diag([csr_array(brought[:, role].T) for role in range(many)])  # (R C, R types)
    by_type = np.arange(variables).reshape(len(types), many).T.ravel().argsort()
    enough = hstack([csr_array(by_role)[:, by_type], csr_array(np.eye(many * classes))])
    answer = milp(
        np.append(np.zeros(variables), np.ones(many * classes)),
        integrality=np.append(np.ones(variables), np.zeros(many * classes)),
        bounds=Bounds(0, np.append(np.repeat(size, many), np.full(many * classes, least))),
        constraints=[
            LinearConstraint(csr_array(once), size, size),
            LinearConstraint(csr_array(enough), np.maximum(least - fixed, 0).ravel(), np.inf),
        ],
        options={"time_limit": seconds},
    )
    impossible = answer.mip_dual_bound is not None and answer.mip_dual_bound > 0.5
    if answer.x is None:
        return Fewest(None, np.zeros((many, classes), dtype=np.int64), bool(impossible))
    shares = np.round(answer.x[:variables]).astype(np.int64).reshape(len(types), many)
    roles = np.empty(groups, dtype=np.int64)
    roles[np.argsort(type_of.ravel(), kind="stable")] = np.repeat(np.tile(np.arange(many), len(types)), shares.ravel())
    held = fixed + np.stack([counts[role][roles == role].sum(axis=0) for role in range(many)])
    lacking = np.maximum(least - held, 0)
    return Fewest(roles, lacking, bool(impossible) or not lacking.any())
