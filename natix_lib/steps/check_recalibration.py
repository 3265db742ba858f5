"""check_recalibration: the parameters of a recalibration -> the settings of each step, and what its sources hold.

It is to the pipeline of recalibration what `check` is to that of training, and is never cached either. Of the bundle it
reads bundle.json alone: that is its fingerprint, because it names the hash of every other file, and it tells the
classes and the size that new images must have. These are taken from there whatever the config says, so that a month in
which a class is absent has the columns of the model, and the config of a training can be used as it is.
"""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.config.form import changes, recalibration_sections
from natix_lib.config.step_settings import recalibration_settings
from natix_lib.contracts import RECALIBRATION, RECALIBRATION_FINGERPRINTS
from natix_lib.files import JsonDict
from natix_lib.progress import Lines
from natix_lib.steps import pod
from natix_lib.steps.fingerprints import data_fingerprint
from natix_lib.steps.obtain import manifest_at


def run(parameters: Mapping[str, Any], compiled: Mapping[str, Any], rest: Mapping[str, Any]) -> tuple[Any, ...]:
    """Validate all parameters together, and look at the sources.

    Args:
        parameters: The parameters of `config.form.recalibration_form`, by name.
        compiled: The same as they were compiled.
        rest: The compiled sections that are no parameters.

    Returns:
        The settings of each step, in the order of `contracts.RECALIBRATION`, and the texts of its fingerprints.

    Raises:
        ConfigError: Naming every mistake in all of them.
        NatixError: If a source is not there, or may not be looked at.
    """
    before = config.parse(config.Config, recalibration_sections(compiled, compiled, rest))
    parsed = config.parse(config.Config, recalibration_sections(parameters, compiled, rest))
    lines = Lines()
    for change in changes(before, parsed):
        lines.say(f"this run has {change}")
    settings, told = prepared(parsed)
    for name, text in told.items():
        lines.say(f"{name.replace('_', ' ')} {text}")
    pod.written()
    return *(settings[step] for step in RECALIBRATION), *told.values()


def prepared(given: config.Config) -> tuple[dict[str, JsonDict], dict[str, str]]:
    """The settings of each step of a recalibration, and the fingerprints of its sources, by their names.

    Raises:
        ConfigError: If no bundle is named.
        NatixError: If the images or the bundle are not there, or may not be looked at.
    """
    manifest, sha256 = manifest_at(given.recalibrate.bundle)
    of_bundle = {
        "class_names": manifest["class_names"],
        "positive_classes": manifest["positive_classes"],
        "resize_shorter_side": manifest["transform"]["resize_shorter_side"],
        "shards": 1,
        "unlabelled": "fail" if given.data.unlabelled == "fail" else "drop",
    }
    model = given.model.model_copy(update={"num_classes": len(manifest["class_names"])})
    data = given.data.model_copy(update=of_bundle)
    settings = recalibration_settings(given.model_copy(update={"data": data, "model": model}))
    told = (data_fingerprint(given), sha256)
    return settings, dict(zip(RECALIBRATION_FINGERPRINTS, told, strict=True))
