"""The losses of ExPLoRA: DINO on CLS tokens, iBOT on masked patches, KoLeo, with Sinkhorn-Knopp centring.

DINOv2 (arXiv 2304.07193) and SwAV (arXiv 2006.09882). All of it is float32. Sums that a single process would take
over its batch are taken over all processes, so that N processes give the loss of one with N times the batch: the
Sinkhorn normalisers are all-reduced, and KoLeo looks for its nearest neighbour among the features of all.
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from natix_lib.distributed.world import ALONE, World

ITERATIONS = 3  # Sinkhorn-Knopp, DINOv2


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, world: World = ALONE, iterations: int = ITERATIONS) -> Tensor:
    """Soft assignments of samples to prototypes that use all prototypes equally.

    Args:
        logits: The teacher's logits, (n, K); n may be 0 on one of several processes.
        temperature: The teacher's temperature, above 0.
        world: The processes whose rows are assigned together.
        iterations: How often rows and columns are normalised.

    Returns:
        Float32 (n, K), each row sums to 1; over all processes' rows the columns sum to nearly equal parts.
    """
    scaled = logits.float() / temperature
    highest = world.highest(scaled.max() if scaled.numel() else scaled.new_full((), -torch.inf))
    q = torch.exp(scaled - highest)  # a common factor changes nothing and keeps exp from overflowing
    samples = world.summed(scaled.new_full((), float(len(scaled))))
    prototypes = q.shape[1]
    q = q / world.summed(q.sum())
    for _ in range(iterations):
        q = q / world.summed(q.sum(dim=0, keepdim=True)).clamp_min(1e-30) / prototypes
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
        temperature: The student's temperature, above 0.

    Returns:
        Mean over pairs of crops and images.
    """
    logs = log_softmax(student.float() / temperature, dim=-1)
    pairs = torch.einsum("tbk,sbk->ts", target, logs)
    same_crop = torch.zeros_like(pairs, dtype=torch.bool)
    same_crop[:, :global_crops] = torch.eye(global_crops, dtype=torch.bool, device=pairs.device)
    compared = pairs.masked_fill(same_crop, 0.0).sum()
    return -compared / ((~same_crop).sum() * student.shape[1])


def ibot_loss(student: Tensor, target: Tensor, image: Tensor, images: int, temperature: float) -> Tensor:
    """Masked patches against the teacher's assignments of the same patches, which it saw.

    Args:
        student: Prototype logits of the masked patches, (m, K).
        target: Assignments of the same patches, (m, K).
        image: Which crop each patch belongs to, in 0..images-1, (m,).
        images: Crops, masked or not.
        temperature: The student's temperature, above 0.

    Returns:
        Sum over crops of the mean over their masked patches, divided by `images`, as in DINOv2's code.
    """
    count = student.new_zeros(images, dtype=torch.float32)
    count = count.index_add(0, image, torch.ones_like(image, dtype=torch.float32)).clamp_min(1)
    return (cross_entropy(student, target, temperature) / count[image]).sum() / images


def koleo_loss(features: Tensor, world: World = ALONE) -> Tensor:
    """-mean log of the distance to the nearest other feature on the sphere (arXiv 1806.03198): spreads features.

    Args:
        features: Features of one crop of each image, (B, F); every process has equally many.
        world: The processes among whose features the neighbours are sought.

    Returns:
        The loss; 0 when there is one feature in all.
    """
    points = normalize(features.float(), eps=1e-8, dim=-1)
    every = world.joined_rows(points)
    if len(every) < 2:
        return points.sum() * 0.0
    with torch.no_grad():
        cosine = points @ every.T
        rows = torch.arange(len(points), device=points.device)
        cosine[rows, rows + world.rank * len(points)] = -torch.inf
        nearest = cosine.argmax(dim=1)
    distance = torch.linalg.vector_norm(points - every[nearest], dim=-1)
    return -torch.log(distance + 1e-8).mean()
