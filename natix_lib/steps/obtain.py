"""obtain: the address of a bundle -> the bundle, opened once with all its checks."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_lib import config, storage
from natix_lib.bundle.contents import BUNDLE, read_bundle
from natix_lib.bundle.runtime import Bundle
from natix_lib.config.step_settings import ObtainSettings
from natix_lib.contracts import read_hashed_document
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict
from natix_lib.steps.fingerprints import BUNDLE as KEY
from natix_lib.steps.fingerprints import require_told


def run(settings: Mapping[str, Any], *, old_bundle: str, bundle_fingerprint: str = "") -> dict[str, float]:
    """Copy a bundle and open it.

    Args:
        settings: What obtain reads of the config: the keys of `ObtainSettings`.
        old_bundle: Folder to write the bundle to: the files that bundle.json names, and no others.
        bundle_fingerprint: The bundle_sha256 that was told; "" where nothing was.

    Returns:
        The largest difference of a golden logit.

    Raises:
        ConfigError: If no bundle is named.
        NatixError: If it cannot be read, was changed since it was told, or fails a check.
    """
    address = required(config.parse(ObtainSettings, settings).bundle)
    folder = Path(old_bundle)
    with tempfile.TemporaryDirectory() as scratch:
        source = storage.fetch_folder(address, Path(scratch) / "bundle")
        documents = read_bundle(source)
        require_told(KEY, address, bundle_fingerprint, documents.sha256)
        for name in (*documents.manifest["files"], BUNDLE):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target)
    return {"golden_difference": Bundle.load(folder, documents.sha256).golden_difference}


def required(address: str) -> str:
    """The address of a bundle that is renewed.

    Raises:
        ConfigError: If there is none.
    """
    if not address:
        raise ConfigError(f"{KEY} must name the bundle whose policy is renewed, got ''")
    return address


def manifest_at(address: str) -> tuple[JsonDict, str]:
    """bundle.json where a bundle lies, of which no other file is read, and its SHA-256.

    Raises:
        ConfigError: If no bundle is named.
        StorageError: If it is not there or cannot be read.
        ContractError: If it is no bundle.json.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = storage.fetch_file(f"{required(address).rstrip('/')}/{BUNDLE}", scratch)
        return read_hashed_document(file, "bundle")
