"""Ways to damage a folder of artifacts, for the tests that say that each is seen."""

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from natix_lib.files import file_table, read_json, sha256_bytes, sha256_file

Json = dict[str, Any]
Edit = Callable[[Path], None]


def seal(folder: Path, manifest: Json, keep_table: bool = False) -> None:
    """Write a bundle.json as a careful forger would: table of files, policy hash and digest made anew."""
    sealed = {key: value for key, value in manifest.items() if key != "digest"}
    if not keep_table:
        sealed["files"] = file_table(folder, leave_out="bundle.json")
    text = json.dumps(sealed, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    sealed["digest"] = sha256_bytes(text.encode())
    (folder / "bundle.json").write_text(json.dumps(sealed, ensure_ascii=False), encoding="utf-8")


def changed_bundle(folder: Path, target: Path, name: str, **values: Any) -> Path:
    """A copy of a bundle whose JSON file `name` has other values, all hashes made anew, the policy's too."""
    shutil.copytree(folder, target)
    (target / name).write_text(json.dumps({**read_json(target / name), **values}), encoding="utf-8")
    manifest = read_json(target / "bundle.json")
    manifest["policy"]["sha256"] = sha256_file(target / manifest["policy"]["file"])
    seal(target, manifest)
    return target


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value; of a list or of the table of files, only the first."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if path == ("files",) or isinstance(value, list):
        items = items[:1]
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(document: Json, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    value: Any = document
    for key in path:
        value = value[key]
    return value


def others(value: Any) -> dict[str, Any]:
    """What may stand in the place of a value, by the kind of the mistake."""
    if isinstance(value, bool):
        return {"turned": not value, "number": int(value), "text": str(value)}
    if isinstance(value, int | float):
        return {
            "negative": -abs(value) - 1,
            "nan": math.nan,
            "infinite": math.inf,
            "text": str(value),
            "true": True,
            "huge": 10**400,
            "larger": value * 1000 + 1,
            "fraction": value + 0.5,
        }
    if isinstance(value, str):
        return {"other": value + "x", "empty": "", "number": 7, "upper": value.upper() + "É", "list": [value]}
    if isinstance(value, list):
        return {"empty": [], "object": {}, "text": "abc", "longer": [*value, *value], "backwards": value[::-1]}
    if value is None:
        return {"text": "abc", "list": [], "object": {}, "true": True, "nan": math.nan}
    return {"empty": {}, "list": [], "text": "abc", "surplus": {**value, "surplus": 1}}


def edits(document: Json) -> Iterator[tuple[str, Json]]:
    """Every place of a document deleted, null, and of each other kind."""
    for path in places(document):
        name = ".".join(map(str, path))
        if not isinstance(at(document, path[:-1]), list):
            edited = copy.deepcopy(document)
            del at(edited, path[:-1])[path[-1]]
            yield f"{name} deleted", edited
        for word, value in {"null": None, **others(at(document, path))}.items():
            if value != at(document, path) or type(value) is not type(at(document, path)):
                edited = copy.deepcopy(document)
                at(edited, path[:-1])[path[-1]] = value
                yield f"{name} {word}", edited
