"""A classifier as ONNX: pixels (n, 3, S, S) float32 to logits (n, C) float32, any n.

Weights lie beside the model in a file named as it with `.data`, because protobuf stops at 2 GiB and a ViT-H+ has
3.4 GB. The exporter's notes on every node (source paths, stack traces) are stripped: they would make equal models
differ from machine to machine.
"""

import logging
import warnings
from pathlib import Path

import torch

from natix_lib.errors import BundleError
from natix_lib.training.classifier import Classifier


def export_onnx(classifier: Classifier, image_size: int, path: Path, input_name: str, output_name: str) -> None:
    """Write a model and, beside it, its weights.

    Args:
        classifier: A classifier on the CPU, float32.
        image_size: Side S of the images that it takes, in pixels.
        path: The ONNX file to write; its weights go to the same name with `.data`.
        input_name: Name of the pixels in the model.
        output_name: Name of the logits in the model.

    Raises:
        BundleError: If the exporter fails.
    """
    example = torch.zeros(2, 3, image_size, image_size)
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # it warns that torchvision, which natix does not use, is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                classifier.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
            )
    except Exception as error:
        raise BundleError(f"the model cannot be exported to ONNX: {error}") from error
    finally:
        registration.setLevel(level)
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*program.model.graph.inputs, *program.model.graph.initializers.values()):
        value.metadata_props.clear()
    program.model.metadata_props.clear()
    program.model.graph.metadata_props.clear()
    program.save(path, external_data=True)
