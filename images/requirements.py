"""What an image needs: the dependencies of pyproject.toml and of its extra `gcs`; kfp comes by itself."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["gcs"]]))
