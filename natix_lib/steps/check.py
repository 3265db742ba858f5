"""check: all config sections -> the settings of each step, before any GPU is asked for."""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.contracts import STEPS
from natix_lib.files import JsonDict


def run(sections: Mapping[str, Any]) -> tuple[JsonDict, ...]:
    """Validate the sections together.

    Args:
        sections: Section name to its values.

    Returns:
        The settings of each step, in the order of `contracts.STEPS`.

    Raises:
        ConfigError: Naming every mistake in all sections.
    """
    settings = config.step_settings(config.parse(config.Config, sections))
    return tuple(settings[step] for step in STEPS)
