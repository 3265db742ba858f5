"""Where backbones come from: a hub id, a local folder, a folder in a bucket, or nowhere: `patches` is learnt in train.

Files are taken as they are, not saved again, so their hashes are the publisher's. Only config, safetensors, the
preprocessor's config and licence files are taken: no pickle ever reaches the disk. A token is used here and nowhere
else, by check, which asks for the commit, and by fetch: `HF_TOKEN`, which the hub's own client reads, or the value of a
secret, asked for only when the hub is.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from natix_lib import grammar, secrets, storage
from natix_lib.config.section import shown
from natix_lib.errors import ConfigError, ContractError, StorageError
from natix_lib.files import read_json, write_bytes, write_json
from natix_lib.repeats import PASSING, Away, repeated, trusted

PATTERNS = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "preprocessor_config.json",
    "LICENSE*",
    "NOTICE*",
)

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as the DINOv2 and DINOv3 families
ANSWER_SECONDS = 60  # that the hub may take to tell a commit
COMMIT = re.compile(r"[0-9a-f]{40}")
LARGEST = 1e6  # of a channel's mean or deviation; pixels are in [0, 1] or, in some files, [0, 255]

LICENCES = {
    "dinov3": (
        "DINOv3 License",
        "Gated: accepted on the hub; it travels with these and with adapted weights.",
    ),
    "dinov2": ("Apache-2.0", "DINOv2 weights are published under Apache-2.0."),
}


T = TypeVar("T")


def copy_backbone(source: str, revision: str, folder: Path, scratch: Path, token_secret: str = "") -> None:
    """Put a backbone's files into `folder`.

    Args:
        source: Hub id, local folder, `gs://` folder, or `patches`, which is written without filters.
        revision: Branch, tag or commit of a hub id.
        folder: Folder that the files are put into; it is created.
        scratch: Folder that downloads are put into.
        token_secret: Secret in Secret Manager with the hub's token; "" leaves it to HF_TOKEN.

    Raises:
        ConfigError: If a local path does not exist.
        StorageError: If the hub or the bucket does not give it, or the secret cannot be read.
        ContractError: If it has no safetensors.
    """
    if source == grammar.PATCHES:
        _write_patches(folder)
        return
    if storage.is_remote(source):
        origin = storage.fetch_folder(source, scratch / "bucket")
    elif Path(source).is_dir():
        origin = Path(source)
    else:
        origin = _from_hub(source, revision, scratch / "hub", token_secret)
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in PATTERNS:
        for path in sorted(origin.glob(pattern)):
            try:
                shutil.copyfile(path, folder / path.name)
            except OSError as error:
                raise StorageError(f"backbone file {path} cannot be copied: {error.strerror or error}") from error
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ContractError(
            f"model.backbone_id {source} needs config.json and model.safetensors; it has {_names(origin)}"
        )


def _write_patches(folder: Path) -> None:
    """`patches` as a backbone's files, its filters yet to be learnt; its pixels are in [0, 1]."""
    from safetensors.torch import save

    from natix_lib.backbones import patches  # here, because it brings torch, which whoever names a source needs not

    config = patches.PatchesConfig()
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "preprocessor_config.json", {"image_mean": [0.0] * 3, "image_std": [1.0] * 3})
    write_bytes(folder / "model.safetensors", save(patches.Patches(config).state_dict()))


def _names(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "no file"


def commit_of(repository: str, revision: str, token_secret: str = "") -> str:
    """The commit that a revision of a hub id stands for now, 40 hex digits; a commit is itself, and nobody is asked.

    Args:
        repository: Hub id.
        revision: Branch, tag or commit.
        token_secret: As in `copy_backbone`.

    Raises:
        ConfigError: If it is no hub id.
        StorageError: If the hub does not tell, or the secret cannot be read.
    """
    _require_hub_id(repository)
    if COMMIT.fullmatch(revision):
        return revision
    instead = (
        "a commit as model.backbone_revision needs no asking and takes what was fetched before; without the hub, name "
        f"a folder or {grammar.PREFIXES} folder of a backbone"
    )

    return _asked(repository, revision, token_secret, lambda token: _commit(repository, revision, token), instead)


def _commit(repository: str, revision: str, token: str | None) -> str:
    from huggingface_hub import HfApi

    commit = HfApi(token=token).repo_info(repository, revision=revision, timeout=ANSWER_SECONDS).sha
    if commit is None or not COMMIT.fullmatch(commit):  # of a mirror
        raise StorageError(f"it tells no commit of the revision {revision}, but {shown(commit)}")
    return commit


def _from_hub(repository: str, revision: str, folder: Path, token_secret: str) -> Path:
    _require_hub_id(repository)
    instead = (
        f"without the hub, name a folder or {grammar.PREFIXES} folder of a backbone, or make a random one: "
        "natix backbone --output FOLDER, then --set model.backbone_id=FOLDER"
    )

    def download(token: str | None) -> Path:
        from huggingface_hub import snapshot_download

        commit = revision if COMMIT.fullmatch(revision) else _commit(repository, revision, token)  # asked here, because
        # without a commit the client takes what an earlier attempt has left for the whole
        return Path(
            snapshot_download(repository, revision=commit, local_dir=folder, allow_patterns=list(PATTERNS), token=token)
        )

    return _asked(repository, revision, token_secret, download, instead)


def _require_hub_id(repository: str) -> None:
    if not is_hub_id(repository):
        raise ConfigError(
            f"model.backbone_id {repository} is no folder, no {grammar.PREFIXES} address and no hub id (owner/name)"
        )
    if not grammar.is_hub_id(repository):
        raise ConfigError(f"model.backbone_id {repository} is no folder here and cannot be a hub id (owner/name)")


def _asked(repository: str, revision: str, token_secret: str, ask: Callable[[str | None], T], instead: str) -> T:
    """What the hub answers, asked with a token, and every refusal as one line; `instead` is what works without it."""
    secret = secrets.read(token_secret) if token_secret else None
    holder = f"secret {token_secret}" if token_secret else "HF_TOKEN"
    try:
        from huggingface_hub import get_token
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        token = secret.get_secret_value() if secret else get_token()
    except ValueError as error:  # an HF_ENDPOINT that is no address, a token's file that is no text
        raise StorageError(f"the hub's client cannot start: {_first_line(error)}; see HF_ENDPOINT, HF_HOME") from error
    if token and not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(f"{holder} must hold a token, one word of ASCII, and holds something else")

    def attempt() -> T:
        try:
            return ask(token)
        except Exception as error:
            if _passes(error):
                raise Away(f"model.backbone_id {repository}: the hub cannot be read: {_first_line(error)}") from error
            raise

    try:
        return repeated(attempt)  # the client itself repeats contents alone; it goes on where it was cut
    except GatedRepoError as error:
        raise StorageError(
            f"model.backbone_id {repository} is gated: accept its licence on the hub and set {holder}"
        ) from error
    except RepositoryNotFoundError as error:
        raise StorageError(
            f"model.backbone_id {repository} does not exist on the hub, or {holder} may not see it"
        ) from error
    except RevisionNotFoundError as error:
        raise StorageError(
            f"model.backbone_revision {revision} is no branch, tag or commit of {repository} on the hub"
        ) from error
    except Exception as error:  # of the hub's client and of the HTTP library that it uses
        reason = _first_line(error.__cause__ or error) if isinstance(error, Away) else _first_line(error)
        raise StorageError(f"model.backbone_id {repository}: the hub cannot be read: {reason}; {instead}") from error


def is_folder(source: str) -> bool:
    """Whether a backbone is a folder, here or in a bucket, and neither an id of the hub nor `patches`."""
    return source != grammar.PATCHES and (storage.is_remote(source) or Path(source).is_dir())


def _passes(error: BaseException | None) -> bool:
    """Whether an error of the hub's client, or what it was made of, may pass by itself.

    The HTTP library below the client is httpx or, in newer ones, httpx2, whose errors have the same names.
    """
    while error is not None and trusted(error):
        status = getattr(getattr(error, "response", None), "status_code", None)
        names = {base.__name__ for base in type(error).__mro__}
        if status in PASSING or ("TransportError" in names and "UnsupportedProtocol" not in names):
            return True
        error = error.__cause__
    return False


def is_hub_id(source: str) -> bool:
    """Whether a text has the form of a backbone's id on the hub, owner/name."""
    return not source.startswith((".", "/", "~")) and source.count("/") == 1


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def normalisation(folder: Path) -> tuple[list[float], list[float]]:
    """Channel mean and deviation of the preprocessor's config, else ImageNet's.

    Raises:
        ContractError: If the preprocessor's config has others than three numbers, deviations above 0.
    """
    path = folder / "preprocessor_config.json"
    document = read_json(path) if path.is_file() else {}
    mean, std = document.get("image_mean", list(IMAGE_MEAN)), document.get("image_std", list(IMAGE_STD))
    for key, values in (("image_mean", mean), ("image_std", std)):
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or not all(abs(value) < LARGEST for value in values):
            raise ContractError(f"{path}: {key} must be three numbers, got {shown(values)}")
    if min(std) <= 0:
        raise ContractError(f"{path}: image_std must be above 0, got {shown(std)}")
    return mean, std


def licence(source: str, folder: Path) -> dict[str, Any]:
    """Name, note and files of a backbone's licence; a folder's own licence file wins over its family's."""
    if source == grammar.PATCHES:
        return {
            "name": "yours",
            "note": "Its filters are learnt from your images; natix is under Apache-2.0.",
            "files": [],
        }
    files = sorted(path.name for pattern in ("LICENSE*", "NOTICE*") for path in folder.glob(pattern))
    family = next((key for key in LICENCES if f"/{key}-" in source), "")
    name, note = LICENCES.get(family, ("see files", "") if files else ("unknown", "The source states no licence."))
    return {"name": name, "note": note, "files": files}
