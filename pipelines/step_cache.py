"""Finished steps, kept by KFP's local cache, with their artifacts checked before they are used again.

KFP looks whether an artifact's path exists and takes what is there. Here the SHA-256 of each artifact stands beside
it, written before the cache's entry: of a file its own, of a folder its manifest's, which holds those of all files.
So a dataset is read once when it is used again, and not once more when it is written. A result that was changed or
lost makes its step run again; one that was never finished has no entry.

A step's inputs stand in its key by their content and not, as with KFP, by their path: a step that is repeated and
gives the same bytes makes nothing after it run again.

Beside KFP's entry stands the step's record: which step, which code, how many seconds, on how many images, and what
else decides how long it takes. It is written before the entry and no key depends on it.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local import cache

from natix_lib.config import Config
from natix_lib.contracts import ARTIFACTS
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, file_table, read_json, sha256_file, write_bytes, write_json
from natix_lib.run_cache import RECORD, read_record

CHANGED = "cached {} was changed: repeated"


class StepCache(cache.LocalCache):  # type: ignore[misc]  # KFP has no types
    """KFP's local cache of tasks, which takes no artifact unseen."""

    def __init__(
        self,
        cache_root: str,
        on_hit: Callable[[str, dict[str, Any], float], None] = lambda *hit: None,
        work: JsonDict | None = None,
    ) -> None:
        """Keep entries below `cache_root`.

        Args:
            cache_root: A folder, which is made.
            on_hit: Called with the step, its outputs and the seconds that it had taken, 0.0 where nothing says, before
                the outputs are used again.
            work: What decides how long this run's steps take, as `work_of` gives it.
        """
        super().__init__(cache_root)
        self._on_hit = on_hit
        self._work = work or {}
        self._tasks: dict[str, _Task] = {}
        self._images: int | None = None  # that this run has ingested

    def compute_key(
        self, component_name: str, image: str, full_command: Any, arguments: Any, *rest: Any, **more: Any
    ) -> str:
        """The key of a task: its code, its settings and the content of its inputs."""
        content = {name: _with_content(value) for name, value in arguments.items()}
        key: str = super().compute_key(component_name, image, full_command, content, *rest, **more)
        self._tasks[key] = _Task(component_name.removeprefix("comp-"), code_of(image), time.monotonic())
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """What a task gave, when all of it is as it was written; else None."""
        outputs: dict[str, Any] | None = super().get(key)
        entry = Path(self._entry_path(key))
        if outputs is not None and all(_is_whole(value) for value in _artifacts(outputs)):
            self._count(outputs)
            self.use(key, outputs)
            return outputs
        if entry.exists():
            logging.warning(CHANGED.format(self._tasks[key].step))
        return None

    def use(self, key: str, outputs: dict[str, Any]) -> None:
        """Say that a kept result is used again, and let its entry's time say so."""
        self._on_hit(self._tasks[key].step, outputs, self.seconds(key))
        with contextlib.suppress(OSError):  # a cache that another user keeps
            os.utime(self._entry_path(key))

    def seconds(self, key: str) -> float:
        """How long a kept result took to make; 0.0 where nothing says."""
        return float(read_record(self._record(key)).get("seconds", 0.0))

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep what a task gave, and how long it took since it was looked for."""
        task = self._tasks[key]
        seconds = round(time.monotonic() - task.asked, 1)
        for artifact in _artifacts(outputs):
            write_bytes(_sha256_path(artifact), _content(artifact).encode())
        images = self._count(outputs) or self._images
        record = {"step": task.step, "code": task.code, "seconds": seconds, "work": self._work}
        write_json(self._record(key), record | ({"images": images} if images else {}))
        super().put(key, outputs)

    def _count(self, outputs: dict[str, Any]) -> int:
        """How many images a task has ingested, which those of the run are counted by: of a shard, its own."""
        images = _images(outputs)
        if images is not None:
            self._images = (self._images or 0) + images
        return images or 0

    def _record(self, key: str) -> Path:
        return Path(self.cache_root) / f"{key}{RECORD}"


@dataclass(frozen=True)
class _Task:
    """A task that was looked for: its step, the code's version, and when, on the monotonic clock."""

    step: str
    code: str
    asked: float


def work_of(config: Config) -> JsonDict:
    """What of a config decides how long steps take, beside the number of images: numbers and names."""
    model, training = config.model, config.training
    return {
        "model": [
            *(model.backbone_id, model.image_size, model.use_multiview, model.freeze_backbone),
            *(
                training.fine_tune.method,
                training.fine_tune.gradient_checkpointing,
                training.views,
                training.feature_cache,
                config.hardware.num_gpus,
            ),
            *(config.data.dataloader.batch_size, config.data.dataloader.num_workers),
        ],
        "epochs": training.epochs,
        "explora_steps": config.explora.steps,
    }


def code_of(image: str) -> str:
    """The version of the code that a local image's name stands for."""
    return image.rpartition(":")[2]


def _artifacts(outputs: dict[str, Any]) -> list[dsl.Artifact]:
    return [value for value in outputs.values() if isinstance(value, dsl.Artifact)]


def _images(outputs: dict[str, Any]) -> int | None:
    """How many images ingest has kept, when these are its outputs."""
    images = outputs.get("images")
    return read_json(Path(images.path) / ARTIFACTS["images"].manifest).get("rows") if images else None


def _content(artifact: dsl.Artifact) -> str:
    path, manifest = _path_and_manifest(artifact)
    return sha256_file(path / manifest)


def _with_content(value: Any) -> Any:
    """An input as it stands in a key: an artifact, or each of a list of them, by its content."""
    if isinstance(value, list):
        return [_with_content(one) for one in value]
    return _content(value) if isinstance(value, dsl.Artifact) else value


def _is_whole(artifact: dsl.Artifact) -> bool:
    path, manifest = _path_and_manifest(artifact)
    try:
        if _content(artifact) != _sha256_path(artifact).read_text():
            return False
        return not manifest or file_table(path, leave_out=manifest) == read_json(path / manifest)["files"]
    except (OSError, ContractError):
        return False


def _path_and_manifest(artifact: dsl.Artifact) -> tuple[Path, str]:
    """Where an artifact is, and the name of its manifest: "" for a file."""
    known = ARTIFACTS.get(artifact.name)
    return Path(artifact.path), known.manifest if known else ""


def _sha256_path(artifact: dsl.Artifact) -> Path:
    return Path(f"{artifact.path}.sha256")
