"""The names that are installed: `components` and `pipelines` are anybody's, so those two folders get natix's own.

Everything else stands in pyproject.toml, which can map a folder to a name only where it lists all packages one by one.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["natix_lib*"]), "natix_components", "natix_pipelines"],
    package_dir={"natix_components": "components", "natix_pipelines": "pipelines"},
)
