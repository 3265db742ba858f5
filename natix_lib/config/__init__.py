"""The config: strict typed sections, YAML plus overrides, every mistake reported at once.

A file holds the sections of one subject; `whole` puts them together, `load` reads them, `explain` prints what each key
means, and `step_settings` gives each step the keys that it reads.

PyYAML reads `1e-4` as text and KFP hands ints over as floats inside dicts: both are coerced, and anything else of
the wrong type is refused.
"""

from natix_lib.config.data import Columns, Data, Dataloader, DataSource
from natix_lib.config.delivery import Evaluate, Export
from natix_lib.config.explora import Explora
from natix_lib.config.fine_tuning import FineTune
from natix_lib.config.hardware import Hardware
from natix_lib.config.load import load
from natix_lib.config.model import DINOV3_HUB_NAMES, Model
from natix_lib.config.policies import Scrc, Sweep
from natix_lib.config.recalibration import Recalibrate
from natix_lib.config.section import parse
from natix_lib.config.split import ROLE_RATIO_NAMES, Ratios, Split
from natix_lib.config.training import EarlyStopping, Grid, MixedPrecision, Optimizer, Training
from natix_lib.config.whole import SECTIONS, Config

__all__ = [
    "DINOV3_HUB_NAMES",
    "ROLE_RATIO_NAMES",
    "SECTIONS",
    "Columns",
    "Config",
    "Data",
    "DataSource",
    "Dataloader",
    "EarlyStopping",
    "Evaluate",
    "Explora",
    "Export",
    "Grid",
    "FineTune",
    "Hardware",
    "MixedPrecision",
    "Model",
    "Optimizer",
    "Ratios",
    "Recalibrate",
    "Scrc",
    "Split",
    "Sweep",
    "Training",
    "load",
    "parse",
]
