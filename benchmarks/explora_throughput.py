"""Images a second, share of the FLOP limit and peak GPU memory of ExPLoRA steps on ViT-L and ViT-H+ at 224 pixels.

Random weights of the family's shapes, random crops: speed does not depend on what is in them. FLOP of a step,
recomputed ones included, are counted by torch. The limit is the device's dense bfloat16 peak of its data sheet.
Without a GPU there is nothing to measure, and it says so.
"""

import time

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from natix_lib.backbones.loading import prefix_tokens
from natix_lib.config import Explora
from natix_lib.explora.adapters import add_adapters
from natix_lib.explora.learner import GLOBAL_CROPS, Learner, Sizes
from natix_lib.explora.masks import batch_masks

FAMILY = {
    "ViT-L": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "ViT-H+": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "intermediate_size": 5120,
        "use_gated_mlp": True,
    },
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}  # dense bfloat16, FLOP/s
STEPS = 10


def main() -> None:
    if not torch.cuda.is_available():
        print("explora throughput: not measured, there is no GPU")
        return
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    table = Table(title=f"ExPLoRA steps at 224 px on {name}")
    for column in ("model", "images at once", "checkpointing", "images/s", "share of the limit", "peak memory, GB"):
        table.add_column(column, justify="right")
    for model, batch, saving in (("ViT-L", 32, False), ("ViT-L", 64, True), ("ViT-H+", 32, True)):
        speed, flop, memory = measure(model, batch, saving)
        share = f"{speed * flop / batch / peak:.0%}" if peak else "limit unknown"
        table.add_row(model, str(batch), "yes" if saving else "no", f"{speed:.0f}", share, f"{memory / 1e9:.1f}")
    Console().print(table)


def measure(model: str, batch: int, saving: bool) -> tuple[float, float, int]:
    """Images a second, FLOP of one step, peak bytes."""
    import numpy as np
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.cuda.reset_peak_memory_stats()
    described = DINOv3ViTConfig(patch_size=16, image_size=224, num_register_tokens=4, **FAMILY[model])
    backbone = DINOv3ViTModel(described)
    settings = Explora(gradient_checkpointing=saving)
    add_adapters(backbone, settings.rank, settings.alpha, settings.unfrozen_blocks)
    if saving:
        backbone.activation_checkpointing_enable()
    sizes = Sizes(224, 96, 16, prefix_tokens(described))
    learner = Learner(backbone, settings, sizes, (0.5,) * 3, (0.25,) * 3).cuda().train()
    optimizer = learner.configure_optimizers()
    globally = torch.randn(GLOBAL_CROPS * batch, 3, 224, 224, device="cuda")
    locally = torch.randn(settings.local_crops * batch, 3, 96, 96, device="cuda")
    drawn = batch_masks(len(globally), 14, 14, settings.mask_share, settings.mask_ratio, np.random.default_rng(0))
    masks = torch.from_numpy(drawn)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = learner.losses(globally, locally, masks)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with FlopCounterMode(display=False) as counter:
        step()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return STEPS * batch / seconds, float(counter.get_total_flops()), torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
