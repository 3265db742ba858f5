"""What `natix doctor --cluster` looks at and `make submit` looks at first: one cluster, one config, one table."""

import threading
from collections.abc import Iterator

from natix_lib import grammar, storage
from natix_lib.config import Config
from natix_lib.config.hardware import Hardware
from natix_lib.contracts import STEPS
from natix_lib.errors import ConfigError
from natix_lib.survey.cluster import KFP_NAMESPACE, look
from natix_lib.survey.fitness import judge
from natix_lib.survey.verdicts import HOLDS, PARTLY, SHORT, Row, table

LISTING_SECONDS = 5.0  # for the size of the images; more would hold up who submits


def checkup(config: Config | None, namespace: str = "", endpoint: str = "") -> list[Row]:
    """Look at a cluster and judge it.

    Args:
        config: The config of a run; None looks at the defaults of the section hardware.
        namespace: Where the steps run; "" is KFP's own.
        endpoint: Address of KFP's API; "" asks through the API server of the kubeconfig.

    Returns:
        The rows; what could not be looked at is one too.
    """
    hardware = config.hardware if config else Hardware()
    with_explora = config is not None and config.model.init_from_explora
    steps = [step for step in STEPS if step != "adapt" or with_explora]
    seen = look(namespace or KFP_NAMESPACE, hardware, endpoint)
    return [*judge(seen, hardware, steps, _data_bytes(config)), *(_path_rows(config) if config else ())]


def require_fit(rows: list[Row]) -> list[str]:
    """The lines of what does not hold.

    Raises:
        ConfigError: If something surely falls short.
    """
    if short := [row for row in rows if row.verdict == SHORT]:
        mistakes = "; ".join(line.removeprefix(SHORT).strip() for line in table(short))
        raise ConfigError(
            f"the cluster falls short: {mistakes}; if KUBECONFIG is another cluster's, or to send it all the same: "
            "make submit DOCTOR=0, --no-doctor"
        )
    return table([row for row in rows if row.verdict != HOLDS])


def _data_bytes(config: Config | None) -> int | None:
    """Bytes at data.data_root, if they can be listed here in time."""
    if config is None:
        return None
    listed: list[int] = []

    def ask() -> None:
        try:
            listed.append(sum(storage.sizes(config.data.data_root).values()))
        except Exception:  # whatever a store's client raises: there is no answer here
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(LISTING_SECONDS)
    return listed[0] if listed else None


def _path_rows(config: Config) -> Iterator[Row]:
    """Paths of the config that no volume of the cluster holds."""
    paths = {
        "data.data_root": config.data.data_root,
        "model.backbone_id": config.model.backbone_id,
        "split.previous": config.split.previous,
        "explora.checkpoint_root": config.explora.checkpoint_root,
        "training.checkpoint_root": config.training.checkpoint_root,
        "training.tensorboard_root": config.training.tensorboard_root,
        "export.publish_uri": config.export.publish_uri,
    }
    for key, path in paths.items():
        on_hub = key == "model.backbone_id" and (path == grammar.PATCHES or grammar.is_hub_id(path))
        is_path = bool(path) and grammar.scheme(path) is None and not on_hub
        if is_path and not any(volume.holds(path) for volume in config.hardware.volumes):
            yield Row(key, PARTLY, f"{path} is a path that no volume holds", "hardware.volumes, or an address")
