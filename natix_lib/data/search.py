"""The search for a cheap division of whole groups: greedy, then moves and swaps of groups while any of them helps."""

import numpy as np

from natix_lib.arrays import Floats, Ints
from natix_lib.data.exact import Question

PASSES = 20
MOST_SWAPPED = 300  # groups; among more, moves alone come as close
MOST_SEARCHED = 2000  # groups; of more, alike ones are shared out by the ratios and the rest is searched
MISSING = 1e6  # cost of an image that a class lacks to its minimum in a role


class Search:
    """Searches for cheap divisions of the same groups; a weight is the real and the synthetic images of each class."""

    def __init__(self, weights: Ints, fixed: Ints, share: Floats, least: int, takes_synthetic: list[bool]) -> None:
        """Take weights (G, 2 C), what the roles hold already (R, 2 C) and their shares (R,)."""
        self.classes = weights.shape[1] // 2
        self.weights, self.fixed, self.share, self.least = weights, fixed, share, least
        self.takes = np.array(takes_synthetic, dtype=np.int64)
        self.synthetic = bool(weights[:, self.classes :].any() or fixed[:, self.classes :].any())
        real = (weights.sum(axis=0) + fixed.sum(axis=0))[: self.classes]
        self.target = share[:, None] * real
        self.scale = np.divide(1.0, real, out=np.zeros(self.classes), where=real > 0)  # cost of an image too many

    def brought(self) -> Ints:
        """Images that each group brings to each role, (R, G, C)."""
        return np.stack(
            [self.weights[:, : self.classes] + takes * self.weights[:, self.classes :] for takes in self.takes]
        )

    def held_at_least(self) -> Ints:
        """Images that each role holds already, (R, C)."""
        result: Ints = self.fixed[:, : self.classes] + self.takes[:, None] * self.fixed[:, self.classes :]
        return result

    def question(self) -> Question:
        """What the exact solver is asked."""
        return Question(
            real=self.weights[:, : self.classes],
            brought=self.brought(),
            fixed=self.fixed[:, : self.classes],
            held=self.held_at_least(),
            target=self.target,
            scale=self.scale,
            least=self.least,
        )

    def lacking(self, roles: Ints) -> Ints:
        """Images of each class that each role lacks, (R, C)."""
        held = self._held(roles)
        usable = held[:, : self.classes] + self.takes[:, None] * held[:, self.classes :]
        result: Ints = np.maximum(self.least - usable, 0)
        return result

    def total(self, roles: Ints) -> float:
        """The cost of a division."""
        return float(self._cost(self._held(roles), np.arange(len(self.share))).sum())

    def run(self, draws: Floats) -> Ints:
        """A division from the start that `draws` (G,) gives."""
        roles = np.full(len(self.weights), -1, dtype=np.int64)
        if len(roles) > MOST_SEARCHED:
            self._share_out(roles, draws)
        rest = np.flatnonzero(roles < 0)
        sizes = self.weights[rest].sum(axis=1)
        order = rest[np.argsort(-sizes * (1 + draws[rest]), kind="stable")]
        held, every = self._held(roles), np.arange(len(self.share))
        for group in order:
            weight = self.weights[group]
            role = int((self._cost(held + weight, every) - self._cost(held, every)).argmin())
            held[role] += weight
            roles[group] = role
        return self._improve(roles, order)

    def improved(self, roles: Ints, draws: Floats) -> Ints:
        """A division at least as cheap as `roles`."""
        return self.rearranged(roles, np.argsort(draws))

    def rearranged(self, roles: Ints, order: Ints) -> Ints:
        """A division at least as cheap as `roles`, in which only the groups of `order` have moved."""
        return self._improve(roles.copy(), order)

    def _share_out(self, roles: Ints, draws: Floats) -> None:
        """Give each role its whole share of the groups that are alike; what is left over stays -1."""
        alike, number = np.unique(self.weights, axis=0, return_inverse=True, return_counts=True)[1:]
        alike = alike.ravel()
        order = np.lexsort((draws, alike))
        place = np.arange(len(roles)) - np.repeat(np.cumsum(number) - number, number)
        ends = np.cumsum(np.floor(number[:, None] * self.share).astype(np.int64), axis=1)[alike[order]]
        role = (place[:, None] >= ends).sum(axis=1)
        roles[order] = np.where(role < len(self.share), role, -1)

    def _improve(self, roles: Ints, order: Ints) -> Ints:
        """Move and swap groups in turn while it helps; changes `roles`."""
        held, every = self._held(roles), np.arange(len(self.share))
        swaps = len(order) <= MOST_SWAPPED
        for _ in range(PASSES):
            before = roles.copy()
            for group in order:
                a, weight = roles[group], self.weights[group]
                now = self._cost(held, every)
                change = self._cost(held + weight, every) - now + self._cost(held[a] - weight, a) - now[a]
                change[a] = 0.0
                b, partner = int(change.argmin()), -1
                gain = change[b]
                if swaps:
                    more = self.weights[order] - weight
                    others = roles[order]
                    change = (
                        self._cost(held[a] + more, a) - now[a] + self._cost(held[others] - more, others) - now[others]
                    )
                    change[others == a] = 0.0
                    place = int(change.argmin())
                    if change[place] < gain:
                        b, partner, gain = int(others[place]), int(order[place]), change[place]
                if gain < -1e-9 * (1 + abs(now.sum())):
                    back = 0 if partner < 0 else self.weights[partner]
                    held[a] += back - weight
                    held[b] += weight - back
                    roles[group] = b
                    if partner >= 0:
                        roles[partner] = a
            if (roles == before).all():
                break
        return roles

    def _held(self, roles: Ints) -> Ints:
        """What each role holds, (R, 2 C)."""
        result: Ints = self.fixed.copy()
        for role in range(len(result)):
            result[role] += self.weights[roles == role].sum(axis=0)
        return result

    def _cost(self, held: Ints, role: Ints) -> Floats:
        """Cost of roles: how far their shares are from their ratios, and a penalty for classes below their minimum."""
        real: Ints = held[..., : self.classes]
        miss = np.abs(real - self.target[role]) * self.scale
        usable = real + self.takes[role][..., None] * held[..., self.classes :] if self.synthetic else real
        result: Floats = (miss + MISSING * np.maximum(self.least - usable, 0)).sum(axis=-1)
        return result
