import pytest
import torch

from natix_lib.training.adamw import AdamW


@pytest.mark.parametrize("decayed", ["all", "matrices"])
def test_adamw_for_many_heads_is_torch_s_for_each(decayed: str) -> None:
    rates, decays = [0.1, 0.01], [0.0, 0.3]
    generator = torch.Generator().manual_seed(0)
    shapes = {"weight": (2, 3, 4), "bias": (2, 3)}
    values = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}
    peers = []
    for number, (lr, decay) in enumerate(zip(rates, decays, strict=True)):
        own = {name: value.detach()[number].clone().requires_grad_() for name, value in values.items()}
        groups = [
            {"params": [value], "weight_decay": decay if decayed == "all" or value.ndim > 1 else 0.0}
            for value in own.values()
        ]
        peers.append((own, torch.optim.AdamW(groups, lr=lr)))
    optimizer = AdamW(values, rates, decays, decayed)
    for step in range(6):
        share = 1 - step / 10
        for name, shape in shapes.items():
            gradient = torch.randn(shape, generator=generator)
            values[name].grad = gradient.clone()
            for number, (own, _) in enumerate(peers):
                own[name].grad = gradient[number].clone()
        optimizer.step(share)
        for lr, (_, peer) in zip(rates, peers, strict=True):
            for group in peer.param_groups:
                group["lr"] = share * lr
            peer.step()
    for number, (own, _) in enumerate(peers):
        for name, value in own.items():
            torch.testing.assert_close(values[name].detach()[number], value.detach(), rtol=1e-5, atol=1e-6)
