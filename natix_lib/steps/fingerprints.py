"""What the sources of a run hold, each told in a short text: by it a cache sees what lies behind an address.

A step's key in KFP's cache is made of its inputs. An address is one of them, what lies there is none, so a step that
reads a source has that source's fingerprint for an input too, `contracts.Step.fingerprint`. check tells all of them
anew in every run on a cluster, and `natix run` before its first step. A word that people change when they have
changed the data, as there was before, was forgotten: a run was green from the old images, and a recurring one took
those of its first month for ever.

Seen is every file or object below `data.data_root`, and nothing else is read: a table names images below it alone. Of
`split.previous` it is the content of its splits.json, of a backbone's folder every file, of an id on the hub the
commit that its revision stands for, which fetch then takes. How a listing tells a change is said at
`storage.fingerprint`; of what a pod has from its image the time of status change is left out, because it is another one
on each node. `natix run` does not ask the hub: it works where there is none, with what it has fetched of a branch
before; a commit as `model.backbone_revision` makes that certain.

What changes between the telling and the end of the reading must not stand in the cache under what was told, so whoever
has read tells once more, and refuses. Going on with a warning was rejected: KFP keeps what every green task gives, and
would serve it when the source is again as it was. Reading what was listed and nothing newer was rejected: a listing of
a million lines as an artifact, and a local folder has no versions.
"""

from pathlib import Path

from natix_lib import storage
from natix_lib.backbones.sources import is_folder
from natix_lib.config import Config
from natix_lib.contracts import FINGERPRINTS
from natix_lib.data.previous import read_previous
from natix_lib.errors import StorageError

NONE = "none"  # not "": older servers take an empty text for one that is missing


def fingerprints(config: Config, commit: str = NONE, in_pod: bool = False) -> dict[str, str]:
    """What the sources of a run hold now.

    Args:
        config: The run's config.
        commit: What stands for a backbone of the hub.
        in_pod: Whether this is a task's pod, in which what lies on the disk of "/" has come with the image.

    Returns:
        A text by each name of `contracts.FINGERPRINTS`; "none" where the config names no such source.

    Raises:
        StorageError: If a source is not there or may not be listed; it names the key.
        ContractError: If `split.previous` is no splits.json.
    """
    backbone, previous = config.model.backbone_id, config.split.previous

    def folder(key: str, uri: str) -> str:
        return _told(key, uri, not (in_pod and _is_on_root(uri)))

    told = (
        folder("data.data_root", config.data.data_root),
        read_previous(previous).sha256 if previous else NONE,
        folder("model.backbone_id", backbone) if is_folder(backbone) else commit,
    )
    return dict(zip(FINGERPRINTS, told, strict=True))


def require_unchanged(key: str, uri: str, fingerprint: str) -> None:
    """Refuse what was read of a source that is no longer as it was told.

    Args:
        key: The key of the config that names the source.
        uri: Its address.
        fingerprint: What was told; "" where nothing was, as by `natix ingest`.

    Raises:
        StorageError: If it is another one now.
    """
    if fingerprint and all(_told(key, uri, status_change) != fingerprint for status_change in (True, False)):
        raise StorageError(f"{key} {uri} was changed while this run read it: run again when nothing is written there")


def _told(key: str, uri: str, status_change: bool) -> str:
    try:
        return storage.fingerprint(uri, status_change)
    except StorageError as error:
        raise StorageError(f"{key}: {error}") from error


def _is_on_root(uri: str) -> bool:
    """Whether something is there, on the disk that "/" is on."""
    path = Path(uri)
    return not storage.is_remote(uri) and path.exists() and path.stat().st_dev == Path("/").stat().st_dev
