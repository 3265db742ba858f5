"""`make docs`: docs/components.md, what each reusable component takes and gives; and the schema of its settings.

Everything is read off what runs: a component's texts off its docstring, as KFP copies them into its file, its settings
off the step's class and the keys of the config. A schema lies beside each component's file, because to KFP `settings`
is any mapping at all. It is as loose as the config's own, see `natix_lib.config.schema`: a step checks its settings
again when it starts.
"""

import copy
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import create_model

from natix_lib.config.explain import Entry, entries, meaning_of, section_of
from natix_lib.config.schema import schema
from natix_lib.config.section import Section
from natix_lib.config.step_settings import SETTINGS
from natix_lib.config.whole import Config
from natix_lib.contracts import TASKS, step_of
from natix_lib.files import JsonDict, write_bytes

PAGE = """\
# Reusable components

Written by `make docs` from `components/` and `natix_lib/config/step_settings.py`. `make compile` writes each component
to `build/components/NAME.yaml`, for any pipeline of Kubeflow or Vertex, and the JSON Schema of its settings beside it,
to `NAME.settings.schema.json`. All inputs of a component must be given, but to split
either `images` or, of an ingest in shards, `shards`.
```python
from kfp import components, dsl

ingest = components.load_component_from_file("build/components/ingest.yaml")
split = components.load_component_from_file("build/components/split.yaml")


@dsl.pipeline
def divided(data_root: str = "gs://my-bucket/street"):
    images = ingest(settings={"data": {"data_root": data_root}}, data_fingerprint="").set_caching_options(False)
    split(
        settings={"split": {"seed": 1}},
        previous_fingerprint="",
        images=images.outputs["images"],
        index=images.outputs["index"],
    )
```
A cache does not see what lies behind an address, so what reads one is left uncached here. In the pipeline of natix
`check` takes the parameters of a run, and gives each step its settings and the fingerprints of its sources. The steps
take:
"""


def component_spec(step: str) -> Any:
    """KFP's specification of a component."""
    return getattr(importlib.import_module(f"natix_components.{step}"), step).component_spec


def settings_schema(step: str) -> JsonDict:
    """The JSON Schema of the settings of a step's component."""
    return schema(settings_of(step), f"settings of the component {step} of natix")


def settings_of(step: str) -> type[Section]:
    """A step's settings as its component takes them: without its other inputs, and with a text at every key.

    A key that its class leaves undescribed means what the key of the config with its name does.
    """
    entered = component_spec(step).inputs
    of_config = {entry.path.rpartition(".")[2]: entry.meaning for entry in entries() if not entry.is_section}
    fields: dict[str, Any] = {}
    settings = SETTINGS[step_of(step)]
    for key, field in settings.model_fields.items():
        if key not in entered:
            section, described = section_of(field.annotation), copy.copy(field)
            described.description = field.description or (meaning_of(section) if section else of_config[key])
            fields[key] = (field.annotation, described)
    return create_model(settings.__name__, __base__=Section, __doc__=settings.__doc__, **fields)


def page() -> str:
    """The page, in Markdown: for each component its inputs, the keys of its settings, and its outputs."""
    return PAGE + "".join(_component(step) for step in TASKS)


def _component(step: str) -> str:
    spec, settings = component_spec(step), settings_of(step)
    image = "GPU" if TASKS[step].gpu else "CPU"
    parts = [f"\n## {step}\n{spec.description} It runs in the {image} image.\n"]
    parts += ["\n| input | type | meaning |\n|---|---|---|\n", *map(_channel, spec.inputs.items())]
    parts += ["\n| key of settings | default | allowed | meaning |\n|---|---|---|---|\n"]
    for key, field in settings.model_fields.items():
        section = section_of(field.annotation)
        entry = next(one for one in entries(settings) if one.path == key)
        default = entry.default or ("" if field.is_required() else "none")
        parts.append(_setting(key, replace(entry, default=default, meaning=str(field.description)), section))
    parts += ["\n| output | type | meaning |\n|---|---|---|\n", *map(_channel, spec.outputs.items())]
    return "".join(parts)


def _channel(named: tuple[str, Any]) -> str:
    name, channel = named
    types = {"Dict[String, Any]": "mapping", "String": "text"}
    kind = types.get(channel.type) or channel.type.removeprefix("system.").partition("@")[0]
    kind = f"list of {kind}" if channel.is_artifact_list else kind
    return f"| `{name}` | {kind} | {channel.description} |\n"


def _setting(key: str, entry: Entry, section: type[Section] | None) -> str:
    allowed = _section_of_config(section) if section else entry.allowed
    default = f"`{entry.default}`" if entry.default else "required"
    return f"| `{key}` | {default} | {allowed} | {entry.meaning} |\n"


def _section_of_config(section: type[Section]) -> str:
    path, whole = next((path, whole) for path, whole in _sections() if issubclass(whole, section))
    without = [f"`{key}`" for key in whole.model_fields if key not in section.model_fields]
    link = f"as the config's [{path}](config.md#{path.partition('.')[0]})"
    return f"{link} without {', '.join(without)}" if without else link


def _sections(section: type[Section] = Config, above: str = "") -> Iterator[tuple[str, type[Section]]]:
    for key, field in section.model_fields.items():
        if inner := section_of(field.annotation):
            yield f"{above}{key}", inner
            yield from _sections(inner, f"{above}{key}.")


if __name__ == "__main__":
    write_bytes(sys.argv[1], page().encode())
