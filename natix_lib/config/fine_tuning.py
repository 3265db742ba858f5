"""The config section `training.fine_tune`: which weights of the backbone change with the head's, and how fast."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from natix_lib.config.key import default
from natix_lib.config.section import Section


class FineTune(Section):
    """How the backbone is tuned with the head, where model.freeze_backbone is false."""

    method: Literal["all", "blocks", "lora"] = default(
        "all",
        "What changes in the backbone: all weights, the last blocks and the final norm, or LoRA matrices on q and v "
        "of all blocks, which are added into the weights before the classifier is written.",
        source="choice: the plain meaning of a backbone that is not frozen; lora and blocks take less memory",
    )
    blocks: PositiveInt = default(
        1,
        "Last blocks that change with the method blocks.",
        unit="blocks",
        source="paper: ExPLoRA, arXiv 2406.10973, which unfreezes one block",
    )
    lora_rank: PositiveInt = default(
        8, "Rank of the LoRA matrices.", unit="dimensions", source="library: peft's LoraConfig"
    )
    lora_alpha: PositiveFloat = default(
        8.0, "Numerator of LoRA's scale, alpha / rank.", unit="none", source="library: peft's LoraConfig"
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = default(
        1.0,
        "Learning rate of a block as a share of the next one's, counted down from the head; 1 gives all the same.",
        unit="share of rate",
        source="choice: one rate for all, as AdamW has it; the fine-tuning of MAE, arXiv 2111.06377, has 0.75",
    )
    device_batch_size: NonNegativeInt = default(
        0,
        "Images at once on each device; gradients are accumulated up to data.dataloader.batch_size. 0 takes the "
        "device's whole share at once.",
        unit="images",
        source="choice: the fastest where memory suffices",
    )
    gradient_checkpointing: bool = default(
        False,
        "Whether activations are computed twice: less memory, a third more time.",
        source="choice: speed before memory",
    )
