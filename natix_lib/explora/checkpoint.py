"""Checkpoints that a stopped run continues from, on disk or in a bucket.

A checkpoint is one safetensors file: the trainable parameters of student and teacher, AdamW's moments, the step, and
the curve so far. Frozen weights are not in it, they come from the backbone; nor is any generator's state, because a
micro-batch depends on its number alone. Lightning's own checkpoints were rejected: they are pickles, and they hold
the whole module.

They are written beside the training (`natix_lib/storage/newest.py`), so that it neither waits for a bucket nor ends
with it: what is written is the state as it was at its step, copied before the next one begins.

The folder below the root is named by everything the run depends on, so the same command finds its own checkpoints and
another one never does.
"""

import json
import re
import tempfile
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from natix_lib import storage
from natix_lib.errors import ContractError
from natix_lib.explora.adapters import trainable_names
from natix_lib.explora.learner import Learner
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.storage.newest import NewestWriter

NAME = re.compile(r"step-\d{8}\.safetensors")
UNFINISHED = re.compile(rf"\.({NAME.pattern})\.\d+\.part")  # on a disk, of a process that ended while it wrote
KEPT = 2  # the newest ones
STOP_SECONDS = 15.0  # for the last checkpoint after SIGTERM; who stops it waits 25, Kubernetes 30, a step ends first
SETTLE_SECONDS = 60.0  # for the last one when training has ended: it is needed only if what follows fails
FORMAT = "2"  # of the content; 1 had no register tokens
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, root: str, identity: dict[str, Any]) -> None:
        """Keep them below `root`, a folder or a bucket's prefix, for the run with this identity (JSON)."""
        self.folder = f"{root.rstrip('/')}/{sha256_bytes(canonical_json(identity))[:16]}"
        self._writer = NewestWriter(self._drop_old)

    def save(self, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        """Let a checkpoint of the state between two optimiser steps be written, and old ones be dropped."""
        self._writer.put(self._place(learner), _content(learner, optimizer))

    def check(self) -> None:
        """Raise StorageError if the place has refused the first checkpoint of this run, as a mistyped one does."""
        self._writer.check()

    def save_now(self, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint before the process ends, for at most STOP_SECONDS."""
        self._writer.write_now(self._place(learner), _content(learner, optimizer), STOP_SECONDS)

    def settle(self) -> None:
        """Wait for what is being written, for at most SETTLE_SECONDS; what does not come is said."""
        self._writer.settle(SETTLE_SECONDS)

    def newest(self) -> str | None:
        """Where the newest checkpoint is, or None."""
        names = _whole(storage.file_names(self.folder))
        return f"{self.folder}/{names[-1]}" if names else None

    def _place(self, learner: Learner) -> str:
        return f"{self.folder}/step-{learner.step_number:08d}.safetensors"

    def _drop_old(self) -> None:
        """Drop what is older than the newest: a newer one may be at work in another thread."""
        files = storage.file_names(self.folder)
        whole = _whole(files)
        unfinished = [name for name in files if (of := UNFINISHED.fullmatch(name)) and of[1] <= max(whole, default="")]
        for name in [*whole[:-KEPT], *unfinished]:
            storage.remove_file(f"{self.folder}/{name}")


def _whole(files: list[str]) -> list[str]:
    return [name for name in files if NAME.fullmatch(name)]


def _content(learner: Learner, optimizer: torch.optim.Optimizer) -> bytes:
    names = trainable_names(learner.student)
    student, teacher = (dict(m.named_parameters()) for m in (learner.student, learner.teacher))
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors[f"student.{name}"], tensors[f"teacher.{name}"] = student[name].detach(), teacher[name]
        for moment, value in optimizer.state.get(student[name], {}).items():
            tensors[f"{moment}.{name}"] = value
    header = {
        "artifact": "explora_checkpoint",
        "format": FORMAT,
        "step": str(learner.step_number),
        "history": json.dumps(learner.history),
    }
    content: bytes = save({name: value.cpu().contiguous() for name, value in tensors.items()}, header)
    return content


def restore(place: str, learner: Learner) -> None:
    """Put a checkpoint into a learner that has not started.

    Raises:
        ContractError: If it is no checkpoint, or not of exactly these trainable parameters.
    """
    names = trainable_names(learner.student)
    with tempfile.TemporaryDirectory() as scratch:
        path = storage.fetch_file(place, scratch)
        try:
            with safe_open(path, framework="pt") as file:
                header = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise ContractError(f"checkpoint {place} cannot be read: {error}") from error
    if header.get("artifact") != "explora_checkpoint":
        raise ContractError(f"{place} is no ExPLoRA checkpoint")
    if (found := header.get("format", "1")) != FORMAT:
        raise ContractError(
            f"checkpoint {place} must be of format {FORMAT}, got {found}: name another folder or drop it"
        )
    required = {f"{part}.{name}" for part in ("student", "teacher") for name in names}
    optional = {f"{part}.{name}" for part in MOMENTS for name in names}
    wrong = sorted((required - set(tensors)) | (set(tensors) - required - optional))
    if wrong:
        raise ContractError(f"checkpoint {place} is not of these trainable parameters: {', '.join(wrong[:3])}")
    with torch.no_grad():
        for part, module in (("student", learner.student), ("teacher", learner.teacher)):
            parameters = dict(module.named_parameters())
            for name in names:
                if parameters[name].shape != tensors[f"{part}.{name}"].shape:
                    raise ContractError(f"checkpoint {place}: {name} has another shape")
                parameters[name].copy_(tensors[f"{part}.{name}"])
    learner.step_number = int(header["step"])
    learner.history = json.loads(header["history"])
    for name in names:
        moments_of = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS if f"{moment}.{name}" in tensors}
        if moments_of:  # none: no gradient yet
            learner.moments[name] = moments_of
