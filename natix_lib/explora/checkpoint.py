"""What is in a checkpoint of adapt, and how a learner goes on from it.

A checkpoint is one safetensors file: the trainable parameters of student and teacher, AdamW's moments, the step, and
the curve so far. Frozen weights are not in it, they come from the backbone; nor is any generator's state, because a
micro-batch depends on its number alone. Lightning's own checkpoints were rejected: they are pickles, and they hold
the whole module. Where they are and when they are written: `natix_lib/storage/checkpoints.py`.
"""

import json

import torch
from torch import Tensor

from natix_lib.errors import ContractError
from natix_lib.explora.adapters import trainable_names
from natix_lib.explora.learner import Learner
from natix_lib.training.checkpoint import read_tensors, tensors_bytes

ARTIFACT = "explora_checkpoint"
FORMAT = "2"  # of the content; 1 had no register tokens
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def content(learner: Learner, optimizer: torch.optim.Optimizer) -> bytes:
    """The checkpoint of the state between two optimiser steps."""
    names = trainable_names(learner.student)
    student, teacher = (dict(m.named_parameters()) for m in (learner.student, learner.teacher))
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors[f"student.{name}"], tensors[f"teacher.{name}"] = student[name].detach(), teacher[name]
        for moment, value in optimizer.state.get(student[name], {}).items():
            tensors[f"{moment}.{name}"] = value
    header = {"format": FORMAT, "step": str(learner.step_number), "history": json.dumps(learner.history)}
    return tensors_bytes(ARTIFACT, tensors, header)


def restore(place: str, learner: Learner) -> None:
    """Put a checkpoint into a learner that has not started.

    Raises:
        ContractError: If it is no checkpoint, or not of exactly these trainable parameters.
    """
    names = trainable_names(learner.student)
    tensors, header = read_tensors(ARTIFACT, place)
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
