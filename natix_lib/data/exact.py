"""What an exact solver, HiGHS, says of a division: the one nearest to the ratios, and whether there is any at all.

Groups are whole numbers of a few kinds: groups that bring the same are one variable for each role, so that a million
groups of few kinds are a small programme. To whether there is a division only counts up to the minimum matter, which
makes more of them alike.

`nearest` has no time limit, because its answer would depend on the machine. It looks at so many nodes of the search
tree; the root alone, where the cuts and heuristics are, comes as near as a hundred nodes do, in a fifth of the time.
HiGHS on one thread is deterministic. The refusal that `fewest_lacking` is asked for does have a time limit: it says so
when time was not enough to prove it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag, csr_array, eye_array, hstack, kron

from natix_lib.arrays import Floats, Ints

SECONDS = 20.0  # of `fewest_lacking`; the refusal says when it was not enough
NODES, GAP = 1, 0.02  # of `nearest`: the root, where the cuts and heuristics are; share that is too dear to go on for


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
    kinds = _Kinds(np.minimum(counts, least).transpose(1, 0, 2).reshape(groups, -1), many)
    brought = kinds.what.reshape(-1, many, classes).transpose(1, 0, 2)
    cells = many * classes  # lacking[role, class], after x[kind, role]
    answer = milp(
        np.append(np.zeros(kinds.variables), np.ones(cells)),
        integrality=np.append(np.ones(kinds.variables), np.zeros(cells)),
        bounds=Bounds(0, np.append(kinds.most, np.full(cells, least))),
        constraints=[
            kinds.once(cells),
            LinearConstraint(
                csr_array(hstack([kinds.held(brought), eye_array(cells)])),
                np.maximum(least - fixed, 0).ravel(),
                np.inf,
            ),
        ],
        options={"time_limit": seconds},
    )
    impossible = answer.mip_dual_bound is not None and answer.mip_dual_bound > 0.5
    if answer.x is None:
        return Fewest(None, np.zeros((many, classes), dtype=np.int64), bool(impossible))
    roles = kinds.roles(answer.x, np.arange(groups))
    held = fixed + np.stack([counts[role][roles == role].sum(axis=0) for role in range(many)])
    lacking = np.maximum(least - held, 0)
    return Fewest(roles, lacking, bool(impossible) or not lacking.any())


@dataclass(frozen=True)
class Question:
    """Groups that are to be divided so that the shares of every class come near to those of the roles.

    Attributes:
        real: Images of each group and class that ratios are about, (G, C).
        brought: Images that a group brings to what a role must have, (R, G, C).
        fixed: Images that ratios are about and that each role holds already, (R, C).
        held: Images that count for what a role must have and that it holds already, (R, C).
        target: Images of each role and class that ratios ask for, (R, C).
        scale: What a miss of one image costs in each class, (C,).
        least: Images of every class that every role must have.
    """

    real: Ints
    brought: Ints
    fixed: Ints
    held: Ints
    target: Floats
    scale: Floats
    least: int


def nearest(question: Question, draws: Floats, nodes: int = NODES, seconds: float = np.inf) -> Ints | None:
    """The division whose misses cost the least, summed over roles and classes.

    Args:
        question: The groups and what is asked.
        draws: A number in [0, 1) of each group: which of alike groups goes where, and in which order the solver meets
            them, so that of divisions that cost the same each seed finds its own, (G,).
        nodes: Nodes of the search tree that the solver may look at.
        seconds: Time that it may take; only without a limit the answer is the same on every machine.

    Returns:
        Role of each group, (G,); None when the solver found none, or there is none.
    """
    many, groups, classes = question.brought.shape
    everything = np.concatenate([question.real, question.brought.transpose(1, 0, 2).reshape(groups, -1)], axis=1)
    kinds = _Kinds(everything, many, draws)
    real, brought = kinds.what[:, :classes], kinds.what[:, classes:].reshape(-1, many, classes).transpose(1, 0, 2)
    cells = many * classes  # miss[role, class] in units of its cost, after x[kind, role]
    cost = np.tile(question.scale, many)
    sums = kinds.held(np.stack([real * question.scale] * many))
    wanted = ((question.target - question.fixed) * question.scale).ravel()
    answer = milp(
        np.append(np.zeros(kinds.variables), np.ones(cells)),
        integrality=np.append(np.ones(kinds.variables), np.zeros(cells)),
        bounds=Bounds(0, np.append(kinds.most, np.where(cost > 0, np.inf, 0))),
        constraints=[
            kinds.once(cells),
            LinearConstraint(csr_array(hstack([sums, -eye_array(cells)])), -np.inf, wanted),
            LinearConstraint(csr_array(hstack([sums, eye_array(cells)])), wanted, np.inf),
            LinearConstraint(
                csr_array(hstack([kinds.held(brought), csr_array((cells, cells))])),
                (question.least - question.held).ravel(),
                np.inf,
            ),
        ],
        options={"node_limit": nodes, "mip_rel_gap": GAP, "time_limit": seconds},
    )
    return None if answer.x is None else kinds.roles(answer.x, np.argsort(draws, kind="stable"))


class _Kinds:
    """Kinds of groups that bring the same, and the variables x[kind, role]: how many of a kind go to a role."""

    def __init__(self, what: Ints, many: int, draws: Floats | None = None) -> None:
        """Take what each group brings (G, k) and the number of roles; kinds stand by rising draw where there is one."""
        self.what, self._kind, size = np.unique(what, axis=0, return_inverse=True, return_counts=True)
        self._kind = self._kind.ravel()
        if draws is not None:
            first = np.full(len(size), np.inf)
            np.minimum.at(first, self._kind, draws)
            order = np.argsort(first, kind="stable")
            place = np.empty(len(order), dtype=np.int64)
            place[order] = np.arange(len(order))
            self.what, size, self._kind = self.what[order], size[order], place[self._kind]
        self._size, self._many = size, many
        self.variables = len(size) * many
        self.most = np.repeat(size, many)

    def once(self, more: int) -> LinearConstraint:
        """Every group has one role; `more` variables stand after x."""
        sums = kron(eye_array(len(self._size)), np.ones((1, self._many)))
        return LinearConstraint(csr_array(hstack([sums, csr_array((len(self._size), more))])), self._size, self._size)

    def held(self, brought: Any) -> Any:
        """A matrix from x to what each role and class holds, where a kind brings `brought` (R, kinds, C) to a role."""
        by_role = block_diag([csr_array(brought[role].T) for role in range(self._many)])  # columns: role, kind
        return csr_array(by_role)[:, np.arange(self.variables).reshape(self._many, -1).T.ravel()]

    def roles(self, x: Floats, order: Ints) -> Ints:
        """The role of each group, (G,); of a kind, groups take the roles in turn, as they stand in `order` (G,)."""
        shares = np.round(x[: self.variables]).astype(np.int64)
        result = np.empty(len(order), dtype=np.int64)
        by_kind = order[np.argsort(self._kind[order], kind="stable")]
        result[by_kind] = np.repeat(np.tile(np.arange(self._many), len(self._size)), shares)
        return result
