"""What the sources of a run hold, each told in a short text: by it a cache sees what lies behind an address.

A step's key in KFP's cache is made of its inputs. An address is one of them, what lies there is none, so a step that
reads a source has that source's fingerprint for an input too, `contracts.Step.fingerprint`. check tells all of them
anew in every run on a cluster, and `natix run` before its first step. A word that people change when they have
changed the data, as there was before, was forgotten: a run was green from the old images, and a recurring one took
those of its first month for ever.

Seen is every file or object below `data.data_root` that is not hidden, and nothing else is read: a table names images
below it alone, and ingest refuses one that names what is hidden. A desktop, a notebook or a cache may write hidden
files there at any time. Of `split.previous` it is the content of its splits.json, of a backbone's folder every file, of
an id on the hub the commit that its revision stands for, which fetch then takes. How a listing tells a change is said
at `storage.fingerprint`. `natix run` does not ask the hub: it works where there is none, with what it has fetched of a
branch before; a commit as `model.backbone_revision` makes that certain.

In a pod the time of status change is left out, because each pod would see another one: of what comes with the image it
is when its node unpacked it, and on a volume a kubelet changes the owner of every file at each mount, if the pod has an
fsGroup. So a local file that was replaced there by another of the same size and the same time of modification is not
seen: that takes a tool that sets the time, such as `cp -p`, and `hardware.uncached_steps: [ingest]` for the next run.

What changes between the telling and the end of the reading must not stand in the cache under what was told, so whoever
has read tells once more, and refuses. Before it reads it tells too: a second attempt at a source that has changed ends
in the time of a listing. Going on with a warning was rejected: KFP keeps what every green task gives, and would serve
it when the source is again as it was. Reading what was listed and nothing newer was rejected: a listing of a million
lines as an artifact, and a local folder has no versions.
"""

from natix_lib import storage
from natix_lib.backbones.sources import is_folder
from natix_lib.config import Config
from natix_lib.contracts import FINGERPRINTS
from natix_lib.data.listing import is_hidden
from natix_lib.data.previous import read_previous
from natix_lib.errors import StorageError
from natix_lib.repeats import in_cluster
from natix_lib.storage.bucket import no_name

NONE = "none"  # not "": older servers take an empty text for one that is missing
DATA, PREVIOUS, BACKBONE = "data.data_root", "split.previous", "model.backbone_id"
BUNDLE = "recalibrate.bundle"


def fingerprints(config: Config, commit: str = NONE) -> dict[str, str]:
    """What the sources of a run hold now.

    Args:
        config: The run's config.
        commit: What stands for a backbone of the hub.

    Returns:
        A text by each name of `contracts.FINGERPRINTS`; "none" where the config names no such source.

    Raises:
        StorageError: If a source is not there or may not be listed; it names the key.
        ContractError: If `split.previous` is no splits.json.
    """
    backbone, previous = config.model.backbone_id, config.split.previous
    told = (
        _told(DATA, config.data.data_root),
        read_previous(previous).sha256 if previous else NONE,
        _told(BACKBONE, backbone) if is_folder(backbone) else commit,
    )
    return dict(zip(FINGERPRINTS, told, strict=True))


def data_fingerprint(config: Config) -> str:
    """What `data.data_root` holds now; raises as `fingerprints`."""
    return _told(DATA, config.data.data_root)


def require_unchanged(key: str, uri: str, fingerprint: str) -> None:
    """Refuse a folder that is no longer as it was told; for before and after it is read.

    Args:
        key: The key of the config that names the source, `DATA` or `BACKBONE`.
        uri: Its address.
        fingerprint: What was told; "" where nothing was, as by `natix ingest`.

    Raises:
        StorageError: If it is another one now.
    """
    if fingerprint:
        require_told(key, uri, fingerprint, _told(key, uri))


def require_told(key: str, uri: str, fingerprint: str, now: str) -> None:
    """Refuse a source of which something else was told than what it is now.

    Raises:
        StorageError: If the two differ and `fingerprint` is not "".
    """
    if fingerprint not in ("", now):
        raise StorageError(f"{key} {uri} was changed since this run began: run again when nothing is written there")


def _told(key: str, uri: str) -> str:
    try:
        return storage.fingerprint(uri, not in_cluster(), is_hidden if key == DATA else no_name)
    except StorageError as error:
        raise StorageError(f"{key}: {error}") from error
