"""Backbones in the Hugging Face layout, loaded strictly.

`from_pretrained` only warns about a missing key and then trains on random numbers; here any missing, unexpected or
mismatched key is an error. Three model types are known because the position of the patch tokens and the licence
differ between them, beside natix's own (`backbones/patches.py`); any other is refused rather than guessed.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from natix_lib.backbones import patches
from natix_lib.config.section import shown
from natix_lib.errors import ConfigError, ContractError
from natix_lib.files import JsonDict, canonical_json, read_json, sha256_bytes

MODEL_TYPES = {
    "dinov3_vit": "DINOv3ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
SIZES = {  # least and most; the largest of the families, ViT-7B, has 4096, 8192, 40 and 32
    "hidden_size": (1, 16_384),
    "intermediate_size": (1, 65_536),
    "num_hidden_layers": (1, 256),
    "num_attention_heads": (1, 256),
    "num_register_tokens": (0, 256),
    "patch_size": (1, 256),
    "image_size": (1, 16_384),
    "num_channels": (3, 3),  # images are RGB
}
FLOATS = {"F64", "F32", "F16", "BF16"}  # dtypes of weights, as safetensors names them


def model_type(config: dict[str, Any], where: str | Path) -> str:
    """The model type of a backbone's config.

    Raises:
        ContractError: If it is not one of `MODEL_TYPES`, or a size is none that a model can have.
    """
    name = config.get("model_type")
    known = (*MODEL_TYPES, patches.MODEL_TYPE)
    if not isinstance(name, str) or name not in known:
        raise ContractError(f"{where}: model_type must be one of {', '.join(known)}, got {shown(name)}")
    for key, (least, most) in SIZES.items():
        size = config.get(key, least)
        if type(size) is not int or not least <= size <= most:
            raise ContractError(f"{where}: {key} must be a whole number from {least} to {most}, got {shown(size)}")
    return name


def load_backbone(folder: str | Path, description: JsonDict | None = None) -> nn.Module:
    """Load a backbone folder (config.json and safetensors) strictly, in float32, on the CPU, in eval mode.

    Args:
        folder: The folder.
        description: Its config.json where the caller has read it; None reads it.

    Raises:
        ContractError: If a file is missing or damaged, the type is unknown, any key is missing, unexpected or
            mismatched, or weights are no finite floats.
    """
    import transformers

    folder = Path(folder)
    if description is None:
        description = read_json(folder / "config.json")
    type_name = model_type(description, folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ContractError(f"backbone {folder} has no .safetensors file")
    for path in files:
        _check_dtypes(path)
    if type_name == patches.MODEL_TYPE:
        return _load_patches(folder, description, files)
    cls = getattr(transformers, MODEL_TYPES[type_name])
    try:
        with quiet_transformers():
            model, info = cls.from_pretrained(
                folder,
                config=cls.config_class.from_dict(description),
                output_loading_info=True,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # so that they are listed; any of them is an error below
            )
    except Exception as error:  # transformers raises whatever a config's values lead it to
        raise ContractError(f"backbone {folder} cannot be loaded: {type(error).__name__}: {error}") from error
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(key if isinstance(key, str) else str(key[0]) for key in info[fault])
        if keys:
            raise ContractError(f"backbone {folder} has {len(keys)} {fault.replace('_', ' ')}: {', '.join(keys[:3])}")
    _require_finite(folder, model)
    return model.eval()  # type: ignore[no-any-return]


def _load_patches(folder: Path, description: JsonDict, files: list[Path]) -> nn.Module:
    model = build_backbone(description)
    try:
        model.load_state_dict({name: value for path in files for name, value in load_file(path).items()}, strict=True)
    except RuntimeError as error:
        raise ContractError(f"backbone {folder} does not fit its config.json: {error}") from error
    _require_finite(folder, model)
    return model


def _require_finite(folder: Path, model: nn.Module) -> None:
    for name, values in model.named_parameters():
        if not torch.isfinite(values).all():
            raise ContractError(f"backbone {folder} holds numbers that are not finite: {name}")


def _check_dtypes(path: Path) -> None:
    """Refuse integers and complex numbers, which would be cast to floats without a word."""
    try:
        with safe_open(path, framework="pt") as tensors:
            dtypes = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ContractError(f"backbone file {path} is no readable safetensors file: {error}") from error
    for name, dtype in dtypes.items():
        if dtype not in FLOATS:
            raise ContractError(f"backbone file {path}: {name} must be of {', '.join(sorted(FLOATS))}, got {dtype}")


def build_backbone(config: dict[str, Any]) -> nn.Module:
    """An untrained backbone of a hub config, for weights that are loaded next.

    Raises:
        ContractError: If no backbone can be made of it.
    """
    import transformers

    type_name = model_type(config, "backbone config")
    if type_name == patches.MODEL_TYPE:
        return patches.Patches(patches.PatchesConfig.from_dict(config)).eval()
    cls = getattr(transformers, MODEL_TYPES[type_name])
    try:
        model: nn.Module = cls(cls.config_class.from_dict(config))
    except Exception as error:  # as above
        raise ContractError(f"backbone config makes no model: {type(error).__name__}: {error}") from error
    return model.eval()


def require_whole_patches(image_size: int, patch: int) -> None:
    """Refuse an image size, pixels, that a backbone's patch does not divide.

    Raises:
        ConfigError: Naming the patch and the size.
    """
    if image_size % patch:
        raise ConfigError(f"model.image_size must be a multiple of the backbone's patch {patch}, got {image_size}")


def weights_sha256(files: JsonDict) -> str:
    """One hash of a backbone, of the hashes of its config and safetensors files in its table of files."""
    kept = {name: file for name, file in files.items() if name == "config.json" or name.endswith(".safetensors")}
    return sha256_bytes(canonical_json(kept))


def prefix_tokens(config: Any) -> int:
    """Tokens before the patches: the class token and the registers."""
    return 1 + int(getattr(config, "num_register_tokens", 0) or 0)


class quiet_transformers:
    """Silence the reports and bars of transformers: what they would tell is raised as errors instead."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._verbosity)
        logging.enable_progress_bar()
