"""`natix verify`: a bundle opened as predict and serve open it, and what can be said of it.

That is every check that natix has: all files by their hashes, all documents against each other, and the golden images
repeated on this machine. A second, lighter check was left out: what it passed, predict could still refuse.
"""

import typer

from natix_lib.cli.options import BundleFolder, is_utf8
from natix_lib.errors import printable


def verify(bundle: BundleFolder) -> None:
    """Check all of a bundle, repeat its golden images here, and say what it is."""
    from natix_lib import __version__
    from natix_lib.bundle.runtime import Bundle

    loaded = Bundle.load(bundle)
    policy, tolerance = loaded.documents.policy, loaded.manifest["parity"]["tolerance"]
    rows = {
        "bundle": f"{bundle}, {len(loaded.manifest['files'])} files as they were written",
        "bundle_sha256": loaded.documents.sha256,
        "classes": ", ".join(loaded.class_names),
        "positive": ", ".join(loaded.positive_classes) or "none",
        "policy": f"{loaded.manifest['policy']['step']}, {policy['method']}",
        "promise": loaded.promise,
        "golden": f"differs by {loaded.golden_difference:.1e} here, at most {tolerance:.1e} is allowed",
        "natix": __version__,
    }
    for name, text in rows.items():
        line = f"{name:<14} {printable(text)}"
        typer.echo(line if is_utf8() else line.encode("ascii", "backslashreplace").decode())
