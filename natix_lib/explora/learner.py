"""Student, teacher and their loss, as Lightning trains them.

The student is in train mode, in which DINOv3 rescales its rotary positions at random; the teacher is in eval mode. A
micro-batch is a function of its number and the seed: crops, masks and torch's generator are all seeded by it, so a
run that is continued from a checkpoint is the run that was never interrupted.

Within a micro-batch nothing waits for a GPU: sizes, draws and masks stay on the CPU until what is computed of them is
copied. Once a step the loss and the norm of the gradients are read, which must be finite before anything changes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from natix_lib.config import Explora
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.explora.adapters import teacher_of, update_teacher
from natix_lib.explora.crops import apply, draw_crops
from natix_lib.explora.head import ProjectionHead
from natix_lib.explora.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn_knopp
from natix_lib.explora.masks import batch_masks
from natix_lib.explora.schedules import at
from natix_lib.seeds import numbered_seed
from natix_lib.training.colour import to_device

GLOBAL_CROPS = 2
GLOBAL_SCALE, LOCAL_SCALE = (0.32, 1.0), (0.05, 0.32)  # DINOv2
LOSSES = ("loss", "dino", "ibot", "koleo")
COLUMNS = ("step", "lr", "momentum", "temperature", *LOSSES)  # of the curve


@dataclass(frozen=True)
class Sizes:
    """Sides of the global crops, the local crops and a patch in pixels, and the tokens before the patches."""

    globally: int
    locally: int
    patch: int
    prefix: int


class Network(nn.Module):
    """A backbone with its projection head; the student trains it, the teacher is its average."""

    def __init__(self, backbone: nn.Module, head: ProjectionHead) -> None:
        """Put a head on a backbone that already has its adapters."""
        super().__init__()
        self.backbone = backbone
        self.head = head

    def tokens(self, pixels: Tensor, masks: Tensor | None = None) -> Tensor:
        """Tokens after the final norm (n, T, F); `masks` (n, patches) replaces patches by the mask token."""
        tokens: Tensor = self.backbone(pixels, bool_masked_pos=masks).last_hidden_state
        return tokens


class Learner(lightning.LightningModule):
    """ExPLoRA's student and teacher.

    Attributes:
        step_number: Number of optimiser steps done.
        moments: AdamW's state by parameter name, to start from.
        history: One dict for each optimiser step: step, lr, momentum, temperature and the losses.
    """

    def __init__(
        self,
        backbone: nn.Module,
        settings: Explora,
        sizes: Sizes,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        world: World = ALONE,
        on_step: Callable[["Learner"], None] = lambda learner: None,
    ) -> None:
        """Make a student of a backbone with adapters, and its teacher.

        Args:
            backbone: A backbone that `add_adapters` has been given.
            settings: Steps, batches, losses and schedules of the run.
            sizes: Sides of crops and patches.
            mean: Mean of each channel that the backbone takes off, RGB in [0, 1].
            std: Standard deviation of each channel that it divides by.
            world: This process's place among those that train together.
            on_step: Called after each optimiser step.
        """
        super().__init__()
        features = int(backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
        head = ProjectionHead(features, settings.head_hidden, settings.head_bottleneck, settings.prototypes)
        self.student = Network(backbone, head)
        self.teacher = teacher_of(self.student)
        self.settings, self.sizes, self.world, self.on_step = settings, sizes, world, on_step
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.step_number = 0
        self.moments: dict[str, dict[str, Tensor]] = {}
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}
        self._micro_batches = 0

    def train(self, mode: bool = True) -> "Learner":
        """The student changes mode, the teacher never leaves eval."""
        super().train(mode)
        self.teacher.eval()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on what the student trains; the learning rate is set at every step."""
        trained = {name: p for name, p in self.student.named_parameters() if p.requires_grad}
        fused = self.device.type == "cuda"  # which counts its steps on the GPU
        optimizer = torch.optim.AdamW(trained.values(), lr=0.0, weight_decay=self.settings.weight_decay, fused=fused)
        for name, state in self.moments.items():
            optimizer.state[trained[name]] = {
                key: value if key == "step" and not fused else value.to(self.device) for key, value in state.items()
            }
        return optimizer

    def on_train_start(self) -> None:
        """A loaded backbone is in eval mode."""
        self.train()

    def transfer_batch_to_device(
        self, batch: tuple[Tensor, Tensor], device: torch.device, dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        """Images go to the device; their sizes stay, for the boxes that the CPU computes."""
        images, sizes = batch
        return images.to(device, non_blocking=True), sizes

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a micro-batch of this process: images uint8 (B, 3, H, W) and their sizes (B, 2)."""
        at_once = len(batch[0]) * self.world.size
        number = self.step_number * (self.settings.batch_size // at_once) + self._micro_batches
        torch.manual_seed(numbered_seed(self.settings.seed, number))  # the same on every process
        with torch.autocast(self.device.type, enabled=False):
            global_crops, local_crops, masks = self.crops_and_masks(*batch, number)
        losses = self.losses(global_crops, local_crops, masks)
        for name in LOSSES:
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self.device)) + losses[name].detach()
        self._micro_batches += 1
        return losses["loss"]

    def crops_and_masks(self, images: Tensor, sizes: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Global crops (2B, ...), local crops (LB, ...), crop after crop, and the global ones' masks (2B, patches).

        Images are on the device, their sizes on the CPU; so are the crops and the masks.
        """
        share, every = len(images), len(images) * self.world.size
        generator = np.random.default_rng((self.settings.seed, number))
        draws = draw_crops(every, self.settings.local_crops, GLOBAL_SCALE, LOCAL_SCALE, generator)
        side = self.sizes.globally // self.sizes.patch
        masks = batch_masks(
            GLOBAL_CROPS * every,
            side,
            side,
            self.settings.mask_share,
            self.settings.mask_ratio,
            generator,
        ).reshape(GLOBAL_CROPS, every, side * side)
        rows = slice(self.world.rank * share, (self.world.rank + 1) * share)
        sides = [self.sizes.globally if i < GLOBAL_CROPS else self.sizes.locally for i in range(len(draws))]
        crops = apply(images, sizes, [each.rows(rows) for each in draws], sides, self.mean, self.std)
        local = torch.cat(crops[GLOBAL_CROPS:]) if len(crops) > GLOBAL_CROPS else crops[0][:0]
        mask = torch.from_numpy(np.ascontiguousarray(masks[:, rows])).flatten(0, 1)
        return torch.cat(crops[:GLOBAL_CROPS]), local, mask

    def losses(self, global_crops: Tensor, local_crops: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """DINO, iBOT, KoLeo and their weighted sum `loss`, scalars; masks on the CPU, crops where the networks are."""
        settings, prefix = self.settings, self.sizes.prefix
        images = len(global_crops) // GLOBAL_CROPS
        device = global_crops.device
        masked = to_device(masks.flatten().nonzero()[:, 0], device)  # numbers of patches, crop after crop
        crop = masked.div(masks.shape[1], rounding_mode="floor")
        masks = to_device(masks, device)
        with torch.no_grad():
            teacher_tokens = self.teacher.tokens(global_crops)
            teacher_cls = self.teacher.head(teacher_tokens[:, 0])
            teacher_patches = self.teacher.head(teacher_tokens[:, prefix:].flatten(0, 1)[masked])
        student_tokens = self.student.tokens(global_crops, masks)
        cls = student_tokens[:, 0]
        every_cls = cls
        if len(local_crops):
            every_cls = torch.cat([cls, self.student.tokens(local_crops)[:, 0]])
        student_cls = self.student.head(every_cls)
        student_patches = self.student.head(student_tokens[:, prefix:].flatten(0, 1)[masked])
        with torch.autocast(self.device.type, enabled=False):
            temperature = at(min(self.step_number, settings.steps - 1), settings).teacher_temperature
            target = sinkhorn_knopp(teacher_cls, temperature, self.world).reshape(GLOBAL_CROPS, images, -1)
            dino = dino_loss(
                student_cls.reshape(-1, images, student_cls.shape[-1]),
                target,
                GLOBAL_CROPS,
                settings.student_temperature,
            )
            ibot = ibot_loss(
                student_patches,
                sinkhorn_knopp(teacher_patches, temperature, self.world),
                crop,
                len(global_crops),
                settings.student_temperature,
            )
            koleo = sum(
                (koleo_loss(part, self.world) for part in cls.chunk(GLOBAL_CROPS)), torch.zeros((), device=device)
            )
            loss = dino + ibot + settings.koleo_weight * koleo
        return {"loss": loss, "dino": dino, "ibot": ibot, "koleo": koleo}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step at this step's learning rate, move the teacher, note the losses.

        Raises:
            TrainingError: If the loss or a gradient was not finite, before anything has changed.
        """
        now = at(self.step_number, self.settings)
        for group in optimizer.param_groups:
            group["lr"] = now.lr
        optimizer.step(closure=optimizer_closure)
        update_teacher(self.teacher, self.student, now.momentum)
        self.step_number += 1
        self._note(now.lr, now.momentum, now.teacher_temperature)
        self.on_step(self)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Stop on what is not finite, hold the prototypes still at first, and clip the norm of all gradients."""
        loss = float(self._sums["loss"])
        parameters = [p for p in self.student.parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = float(total)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"loss is {loss / self._micro_batches}" if not math.isfinite(loss) else f"gradient norm is {norm}"
            raise TrainingError(f"ExPLoRA's {what} at step {self.step_number}: lower explora.lr")
        if not at(self.step_number, self.settings).prototypes_train:
            self.student.head.prototypes.grad = None
        torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, total)

    def _note(self, lr: float, momentum: float, temperature: float) -> None:
        count = float(self._micro_batches * self.world.size)
        sums = self.world.summed(torch.stack([self._sums[name] for name in LOSSES])).tolist()
        means = {name: value / count for name, value in zip(LOSSES, sums, strict=True)}
        self._sums, self._micro_batches = {}, 0
        row = {"step": float(self.step_number), "lr": lr, "momentum": momentum, "temperature": temperature, **means}
        self.history.append(row)
