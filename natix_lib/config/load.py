"""A config read from a file, with overrides: `section.key=value`, the same words for every command that takes them."""

from collections.abc import Iterable
from pathlib import Path

from natix_lib.config.section import parse, shown
from natix_lib.config.whole import SECTIONS, Config
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict
from natix_lib.strict_yaml import MAX_BYTES, read_yaml


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML config, apply `key=value` overrides and validate.

    Args:
        path: Path of the YAML file.
        overrides: Each `section.key=value`, the value in YAML (`training.optimizer.lr=1e-4`).

    Raises:
        ConfigError: If the file or an override cannot be read, or any value breaks a rule.
    """
    values = read_yaml(_content(Path(path)), f"config {path}")
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} must hold sections ({', '.join(SECTIONS)}), got {shown(values)}")
    for override in overrides:
        assign(values, override)
    return parse(Config, values)


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise ConfigError(f"cannot read config {path}: it is no regular file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise ConfigError(f"cannot read config {path}: {getattr(error, 'strerror', None) or error}") from error


def assign(values: JsonDict, override: str) -> None:
    """Set a key of a config's values as `section.key=value` says.

    Raises:
        ConfigError: If it does not read so, or its value is no YAML.
    """
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set takes section.key=value, got {shown(override)}")
    target = values
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: {part} is a value, not a section")
    target[parts[-1]] = read_yaml(text, f"--set {key}: {shown(text)}")
