"""Heads of one pooling whose settings differ, trained at once: each of their parameters is a tensor (E, ...).

Heads of another pooling have other shapes and stand in products of their own; padding them to one width was rejected,
as a hidden layer then costs each head the square of all poolings together.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from natix_lib.config import Optimizer
from natix_lib.documents import CLS_AND_MEAN, Pooling
from natix_lib.training.adamw import AdamW
from natix_lib.training.classifier import Head
from natix_lib.training.weights import trainable_state, warmed


@dataclass(frozen=True)
class Point:
    """Settings of a head: highest learning rate, weight decay, share of features that dropout hides, and poolings."""

    lr: float
    weight_decay: float
    dropout_rate: float
    pooling: tuple[Pooling, ...] = CLS_AND_MEAN


class Heads:
    """E heads of one pooling."""

    def __init__(
        self,
        head: Head,
        of: Sequence[Point],
        columns: Tensor | None,
        optimizer: Optimizer,
        ema_decay: float | None,
    ) -> None:
        """Begin with the same first weights.

        Args:
            head: An untrained head, standardised, on the device to use; it is left as it is.
            of: A point for each head, those of the same dropout beside each other.
            columns: Which of the features are theirs, (F,); None takes all.
            optimizer: What decays, and where gradients are clipped.
            ema_decay: Decay of the averages; None has none.
        """
        self.columns, self.optimizer, self.ema_decay = columns, optimizer, ema_decay
        self.values = {
            name: value.expand(len(of), *value.shape).clone().requires_grad_()
            for name, value in trainable_state(head).items()
        }
        self.groups: list[tuple[slice, Head]] = []
        first = 0
        for dropout in dict.fromkeys(point.dropout_rate for point in of):
            many = sum(point.dropout_rate == dropout for point in of)
            alike = deepcopy(head)
            alike.dropout.p = dropout
            self.groups.append((slice(first, first + many), alike))
            first += many
        self.adamw = AdamW(
            self.values, [point.lr for point in of], [point.weight_decay for point in of], optimizer.decayed
        )
        self.average = self._copies() if ema_decay is not None else None
        self.kept = self._copies()

    def trained(self, inputs: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> tuple[Tensor, ...]:
        """Losses (E,) of a batch, whose gradients are added, and how many images each head tells right, (E,)."""
        logits = self._logits(self.values, inputs, training=True)
        losses = _losses(logits, labels, weights, smoothing)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), (logits.detach().argmax(-1) == labels).sum(dim=1)

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Clip each head's gradients, take a step at this share of each rate, and average."""
        self._clip()
        self.adamw.step(share)
        if self.average is not None and self.ema_decay is not None:
            for name, value in self.average.items():
                value.lerp_(self.values[name].detach(), 1 - warmed(self.ema_decay, self.adamw.steps))

    @torch.no_grad()
    def scored(self, features: Tensor) -> Tensor:
        """Logits (E, ..., C) of features (..., F) by the averages, or by the weights where there are none."""
        return self._logits(self._scoring, features, training=False)

    def keep(self, number: int) -> None:
        """Keep what head `number` was scored with."""
        for name, value in self.kept.items():
            value[number] = self._scoring[name][number].detach()

    @property
    def _scoring(self) -> dict[str, Tensor]:
        return self.average if self.average is not None else self.values

    def _copies(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.values.items()}

    def _logits(self, values: dict[str, Tensor], features: Tensor, training: bool) -> Tensor:
        own_features = features if self.columns is None else features[..., self.columns]
        parts = []
        for rows, head in self.groups:
            head.train(training)

            def of_one(own: dict[str, Tensor], inputs: Tensor, head: Head = head) -> Tensor:
                answer: Tensor = functional_call(head, own, (inputs,))
                return answer

            own = {name: value[rows] for name, value in values.items()}
            parts.append(vmap(of_one, in_dims=(0, None), randomness="different")(own, own_features))
        return torch.cat(parts)

    def _clip(self) -> None:
        """Scale each head's gradients so that their norm is at most `clip`."""
        if not self.optimizer.clip:
            return
        gradients = [value.grad for value in self.values.values() if value.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        share = (self.optimizer.clip / (norm + 1e-6)).clamp_max(1.0)
        for gradient in gradients:
            gradient.mul_(share.view(-1, *[1] * (gradient.ndim - 1)))


def _losses(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Weighted mean cross-entropy of each head, (E,), of logits (E, b, C)."""
    every = cross_entropy(
        logits.flatten(0, 1).float(),
        labels.repeat(len(logits)),
        weight=weights,
        reduction="none",
        label_smoothing=smoothing,
    )
    weight = len(labels) if weights is None else weights[labels].sum()
    return every.view(len(logits), -1).sum(dim=1) / weight
