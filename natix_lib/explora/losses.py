"""The losses of ExPLoRA: DINO on CLS tokens, iBOT on masked patches, KoLeo, with Sinkhorn-Knopp centring.

DINOv2 (arXiv 2304.07193) and SwAV (arXiv 2006.09882). All of it is float32. Sums that a single process would take
over its batch are taken over all processes, so that N processes give the loss of one with N times the batch: the
Sinkhorn normalisers are all-reduced, and KoLeo looks for its nearest neighbour among the features of all.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

ITERATIONS = 3  # Sinkhorn-Knopp, DINOv2


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_sum(value: Tensor) -> Tensor:
    """The sum of `value` over all processes; no gradient."""
    if processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, iterations: int = ITERATIONS) -> Tensor:
    """Soft assignments of samples to prototypes that use all prototypes equally.

    Args:
        logits: Of the teacher, (n, K); n may be 0 on one of several processes.
        temperature: Of the teacher, above 0.
        iterations: Of the row and column normalisation.

    Returns:
        Float32 (n, K), each row sums to 1; over all processes' rows the columns sum to nearly equal parts.
    """
    scaled = logits.float() / temperature
    highest = scaled.max() if scaled.numel() else scaled.new_tensor(-torch.inf)
    if processes() > 1:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    q = torch.exp(scaled - highest)  # a common factor changes nothing and keeps exp from overflowing
    samples = all_sum(scaled.new_tensor(float(len(scaled))))
    prototypes = q.shape[1]
    q = q / all_sum(q.sum())
    for _ in range(iterations):
        q = q / all_sum(q.sum(dim=0, keepdim=True)).clamp_min(1e-30) / prototypes
        q = q / q.sum(dim=1, keepdim=True).clamp_min(1e-30) / samples
    return q * samples


def cross_entropy(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """-sum target log softmax(student / temperature), (n,); student and target (n, K)."""
    return -(target * log_softmax(student.float() / temperature, dim=-1)).sum(dim=-1)


def dino_loss(student: Tensor, target: Tensor, global_crops: int, temperature: float) -> Tensor:
    """Every student crop against every teacher crop of the same image but its own.

    Args:
        student: Prototype logits of the crops, global ones first, (crops, B, K).
        target: Assignments of the teacher's global crops, (global_crops, B, K).
        global_crops: How many of the student's crops are global.
        temperature: Of the student.

    Returns:
        Mean over pairs of crops and images.
    """
    logs = log_softmax(student.float() / temperature, dim=-1)
    pairs = torch.einsum("tbk,sbk->ts", target, logs)
    own = torch.zeros_like(pairs, dtype=torch.bool)
    own[:, :global_crops] = torch.eye(global_crops, dtype=torch.bool, device=pairs.device)
    kept = pairs.masked_fill(own, 0.0).sum()
    return -kept / ((~own).sum() * student.shape[1])


def ibot_loss(student: Tensor, target: Tensor, image: Tensor, images: int, temperature: float) -> Tensor:
    """Masked patches against the teacher's assignments of the same patches, which it saw.

    Args:
        student: Prototype logits of the masked patches, (m, K).
        target: Assignments of the same patches, (m, K).
        image: Which crop each patch belongs to, in 0..images-1, (m,).
        images: Crops, masked or not.
        temperature: Of the student.

    Returns:
        Sum over crops of the mean over their masked patches, divided by `images`, as in DINOv2's code.
    """
    count = torch.bincount(image, minlength=images).clamp_min(1).float()
    return (cross_entropy(student, target, temperature) / count[image]).sum() / images


def koleo_loss(features: Tensor) -> Tensor:
    """-mean log of the distance to the nearest other feature on the sphere (arXiv 1806.03198): spreads features.

    Args:
        features: Of one crop of each image, (B, F); with several processes the neighbours are sought in all.

    Returns:
        The loss; 0 when there is one feature in all.
    """
    own = normalize(features.float(), eps=1e-8, dim=-1)
    every, offset = own, 0
    if processes() > 1:
        from torch.distributed.nn.functional import all_gather

        every = torch.cat(all_gather(own))  # type: ignore[no-untyped-call]
        offset = dist.get_rank() * len(own)
    if len(every) < 2:
        return own.sum() * 0.0
    with torch.no_grad():
        cosine = own @ every.T
        rows = torch.arange(len(own), device=own.device)
        cosine[rows, rows + offset] = -torch.inf
        nearest = cosine.argmax(dim=1)
    distance = torch.linalg.vector_norm(own - every[nearest], dim=-1)
    return -torch.log(distance + 1e-8).mean()
