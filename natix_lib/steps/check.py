"""check: the parameters of a run -> the settings of each step, and what its sources hold, before any GPU is asked for.

KFP does not merge: a section that is sent replaces its default whole. So check is given the compiled config as well,
and lays over it what was sent, whoever sent it. It is the one task that no cache may answer, because it looks at what
lies outside the run; what it tells is equal in the next run when nothing has changed, and all after it stays cached.
"""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.backbones.sources import commit_of, is_folder
from natix_lib.config.form import changes, sections
from natix_lib.config.step_settings import step_settings
from natix_lib.contracts import STEPS
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict
from natix_lib.grammar import PATCHES
from natix_lib.progress import Lines
from natix_lib.steps import pod
from natix_lib.steps.fingerprints import NONE, fingerprints


def run(
    parameters: Mapping[str, Any], compiled: Mapping[str, Any], token_secret: str = ""
) -> tuple[JsonDict | str, ...]:
    """Validate all parameters together, and look at the sources.

    Args:
        parameters: The parameters of `config.form`, by name.
        compiled: The same as they were compiled.
        token_secret: Name of a secret in Secret Manager that holds the hub's token; "" leaves it to HF_TOKEN.

    Returns:
        The settings of each step, in the order of `contracts.STEPS`, and the texts of `contracts.FINGERPRINTS`.

    Raises:
        ConfigError: Naming every mistake in all of them, or that the pipeline is the other variant.
        NatixError: If a source is not there, or may not be looked at.
    """
    parsed = config.parse(config.Config, sections(parameters, compiled))
    with_explora = compiled["model"]["init_from_explora"]
    if parsed.model.init_from_explora != with_explora:
        raise ConfigError(
            f"model.init_from_explora is {str(not with_explora).lower()} but this pipeline was compiled "
            f"{'with' if with_explora else 'without'} ExPLoRA: submit the other one"
        )
    lines = Lines()
    for change in changes(config.parse(config.Config, sections(compiled, compiled)), parsed):
        lines.say(f"this run has {change}")
    settings, model = step_settings(parsed), parsed.model
    commit = NONE
    if model.backbone_id != PATCHES and not is_folder(model.backbone_id):
        commit = commit_of(model.backbone_id, model.backbone_revision, token_secret)
        settings["fetch"]["backbone_revision"] = commit
    told = fingerprints(parsed, commit)
    for name, text in told.items():
        lines.say(f"{name.replace('_', ' ')} {text}")
    pod.written()
    return *(settings[step] for step in STEPS), *told.values()
