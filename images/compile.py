"""Imports what tasks import, so that Python compiles these modules and no others; a build ends here if one is missing.

Some are imported only when they are used: the backbones' models, and what torch needs to write ONNX.
"""

import importlib
import pkgutil

import torch

import natix_lib

KFP = ("kfp.dsl.executor_main",)
BACKBONES = ("transformers.models.dinov2.modeling_dinov2", "transformers.models.dinov3_vit.modeling_dinov3_vit")

library = [module.name for module in pkgutil.walk_packages(natix_lib.__path__, "natix_lib.")]
for name in (*KFP, *BACKBONES, *library):
    importlib.import_module(name)
torch.onnx.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),), dynamo=True)
