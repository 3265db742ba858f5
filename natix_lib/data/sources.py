"""Which of the layouts a data set has: tables, files that hold images, or a folder for each class.

`data.format: auto` takes what can be read in one way only, in this order: manifest.*, metadata.* (Hugging Face's
imagefolder), a folder that `save_to_disk` wrote, Parquet that holds images, shards of WebDataset, one table beside the
images of one folder or one for each split role, folders of classes. A table that names images of the set and is none
of these is never passed over: the refusal, or a warning, names it. Facts are read first, images
are then streamed one after another, so that a set larger than memory can be read.
"""

from collections.abc import Callable
from pathlib import Path

from natix_lib.config import Columns, DataSource
from natix_lib.data.archives import ARCHIVES, TARS, refuse_several
from natix_lib.data.beside import lists, may_list, naming_too, not_taken, passed_over, placed, tables_beside
from natix_lib.data.folders import read_folders
from natix_lib.data.listing import SPLITS, STATE, Listing, list_folder
from natix_lib.data.rows import EXAMPLES, FILE_NAME, Source, some
from natix_lib.data.shards import from_shards, holds_samples
from natix_lib.data.tables import (
    TABLES,
    as_written,
    from_tables,
    read_table,
    require_named_columns,
)
from natix_lib.errors import DataError


def open_source(root: Path, settings: DataSource) -> Source:
    """Read the facts of a data set and get ready to stream its images.

    Args:
        root: The local folder of `settings.data_root`.
        settings: Format, columns, manifest and class names.

    Raises:
        DataError: If nothing readable is there, it can be read in two ways, a column is missing, or a fact breaks its
            rule.
    """
    listing = list_folder(root, settings.data_root)
    if not listing.files and not listing.hidden and not listing.broken:
        raise DataError(f"data.data_root {listing.place} is empty")
    source = _read(listing, settings)
    if not source.rows:
        raise DataError(f"data.data_root {listing.place} lists no image")
    return source


def _read(listing: Listing, settings: DataSource) -> Source:
    if settings.manifest:
        return _from_manifest(listing, settings)
    if settings.format in LAYOUTS:
        return LAYOUTS[settings.format](listing, settings)
    columns = settings.columns
    tars, archives = listing.with_suffix(*TARS), listing.with_suffix(*ARCHIVES)
    if _manifests(listing) or _metadata(listing):
        if not listing.images:
            refuse_several(archives, listing.place)
        return _from_manifest(listing, settings)
    if _is_saved(listing):
        return _from_saved(listing, settings)
    if listing.parquet and (not listing.images or _holds_images(listing, columns)):
        return _from_parquet(listing, settings)
    if not listing.images:
        if tars and holds_samples(listing.root / tars[0]):
            return from_shards(listing, settings)
        refuse_several(archives, listing.place)
    if tables := tables_beside(listing, columns):
        source = from_tables(listing, tables, columns, roles=True)
        is_read = (
            "is read as the manifest" if len(tables) == 1 else "are read as the manifest, a table for each split role"
        )
        source.warnings.insert(0, f"{some(table.name for table in tables)} {is_read}")
        return source
    try:
        source = _from_folders(listing, settings)
        source.warnings.extend(passed_over(listing))
        return source
    except DataError as error:
        others = [path for path in listing.files if may_list(path)]
        if not others:
            raise
        reasons = [f"{not_taken(listing, path, columns)}; " for path in listing.with_suffix(*TABLES) if path in others]
        raise DataError(
            f"{error}; {''.join(reasons[:EXAMPLES])}a table among {some(others)} is read when data.manifest names it"
        ) from error


def _from_parquet(listing: Listing, settings: DataSource) -> Source:
    from natix_lib.data.parquet import from_parquet  # pyarrow is no need of other layouts

    if not listing.parquet:
        raise DataError(f"data.data_root {listing.place} has no .parquet file")
    return from_parquet(listing, listing.parquet, settings.columns)


def _is_saved(listing: Listing) -> bool:
    """Whether a state.json stands beside Arrow files, as `datasets.save_to_disk` writes them."""
    return bool(listing.with_suffix(".arrow")) and any(path.name in (STATE, SPLITS) for path in listing.files)


def _from_saved(listing: Listing, settings: DataSource) -> Source:
    from natix_lib.data.saved import from_saved  # pyarrow

    return from_saved(listing, settings.columns)


def _holds_images(listing: Listing, columns: Columns) -> bool:
    from natix_lib.data.parquet import holds_images

    return holds_images(listing.root, listing.parquet[0], columns)


def _from_folders(listing: Listing, settings: DataSource) -> Source:
    source = read_folders(listing, settings.class_names)
    require_named_columns({}, settings.columns)
    return source


def _manifests(listing: Listing) -> list[Path]:
    """manifest.csv and its like at the top; a folder manifest.parquet of part files counts as one."""
    tops = {path.parts[0] if path.name.lower().endswith(".parquet") else path.as_posix() for path in listing.files}
    names = {f"manifest{suffix}" for suffix in TABLES}
    return [Path(name) for name in sorted(tops) if name.lower() in names]


def _metadata(listing: Listing) -> list[Path]:
    """metadata.csv and its like, in any folder."""
    names = {f"metadata{suffix}" for suffix in TABLES}
    return [path for path in listing.files if path.name.lower() in names]


def _from_manifest(listing: Listing, settings: DataSource) -> Source:
    root, columns = listing.root, settings.columns
    if settings.manifest:
        path = Path(settings.manifest)
        if not (root / path).exists():
            raise DataError(f"data.manifest {settings.manifest} does not exist in {listing.place}")
        if (root / path).is_dir() and not path.name.lower().endswith(".parquet"):
            raise DataError(f"data.manifest {settings.manifest} is a folder: name a file")
        return from_tables(listing, [placed(listing, read_table(root, path, columns), columns)], columns, roles=False)
    manifests, metadata = _manifests(listing), _metadata(listing)
    naming = naming_too(listing, manifests or metadata) if manifests or metadata else []
    rivals = [path for path in naming if lists(root, path, columns)]
    if len(manifests) > 1 or rivals:
        raise DataError(
            f"data.data_root {listing.place} has {some([*(manifests or metadata), *rivals])}: name one as data.manifest"
        )
    source = None
    if manifests:
        source = from_tables(
            listing, [placed(listing, read_table(root, manifests[0], columns), columns)], columns, False
        )
    elif metadata:
        source = _from_metadata(listing, metadata, columns)
    if source:
        if naming:
            source.warnings.append(
                f"{some(naming)} names images too and is not read: set data.manifest to it if it should"
            )
        return source
    if tables := tables_beside(listing, columns):
        return from_tables(listing, tables, columns, roles=True)
    raise DataError(f"data.data_root {listing.place} has neither manifest.csv nor manifest.parquet: set data.manifest")


def _from_metadata(listing: Listing, metadata: list[Path], columns: Columns) -> Source:
    """Hugging Face's imagefolder: a table in the folder of each split, or one at the top."""
    tables = [read_table(listing.root, path, columns) for path in metadata]
    for table in tables:
        these = as_written(table.name, [*table.header, *table.nested], columns)
        image = these.image if these.image in [*table.header, *table.nested] else FILE_NAME
        for key, column in (("image", image), ("label", these.label)):
            if column not in {*table.header, *table.nested}:
                raise DataError(
                    f"{table.name} has no column {column!r}; it has {', '.join(table.header[:12])}: name the column as "
                    f"data.columns.{key}, or set data.format to folder or parquet if it does not list images and labels"
                )
    source = from_tables(listing, tables, columns, roles=True)
    listed = {row.id.partition("/")[0] for row in source.rows}
    for path in listing.images:
        if len(path.parts) > 1 and path.parts[0] not in listed:
            count = sum(other.parts[0] == path.parts[0] for other in listing.images)
            raise DataError(
                f"folder {path.parts[0]} holds {count} images, the first is {path}, and {some(metadata)} names none of "
                "them: add their rows, or list all images in a manifest.csv"
            )
    return source


LAYOUTS: dict[str, Callable[[Listing, DataSource], Source]] = {
    "manifest": _from_manifest,
    "parquet": _from_parquet,
    "arrow": _from_saved,
    "webdataset": from_shards,
    "folder": _from_folders,
}
"""What `data.format` names, beside auto."""
