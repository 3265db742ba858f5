"""check: the parameters of a run -> the settings of each step, before any GPU is asked for."""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.config.form import sections
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import STEPS
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict
from natix_lib.steps import pod


def run(parameters: Mapping[str, Any], with_explora: bool) -> tuple[JsonDict, ...]:
    """Validate all parameters together.

    Args:
        parameters: The parameters of `config.form`, by name.
        with_explora: Whether the pipeline has an adapt step.

    Returns:
        The settings of each step, in the order of `contracts.STEPS`.

    Raises:
        ConfigError: Naming every mistake in all of them, or that the pipeline is the other variant.
    """
    parsed = config.parse(config.Config, sections(parameters))
    if parsed.model.init_from_explora != with_explora:
        raise ConfigError(
            f"model.init_from_explora is {str(not with_explora).lower()} but this pipeline was compiled "
            f"{'with' if with_explora else 'without'} ExPLoRA: submit the other one"
        )
    settings = step_settings(parsed)
    pod.written()
    return tuple(settings[step] for step in STEPS)
