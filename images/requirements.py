"""What an image needs: the dependencies of pyproject.toml and of the extras that steps use; kfp comes by itself."""

import sys
import tomllib
from pathlib import Path

EXTRAS = ("train", "gcs", "s3", "nodes", "serve")

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
names = [*project["dependencies"], *(name for extra in EXTRAS for name in extras[extra])]
print("\n".join(name for name in names if not name.startswith("kfp")))
