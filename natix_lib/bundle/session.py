"""The onnxruntime session of a bundle: what it may hold, and how many threads it takes.

onnxruntime takes a thread for every core of the machine, whatever share of it a container may use, and does not read
OMP_NUM_THREADS, so it is told what `cpu_threads` counts.

A model file is a program and cannot be judged whole. What holds: it is the file that the manifest names; its weights
lie in the bundle's folder (onnxruntime refuses a path out of it); it takes and gives what a classifier of these
classes does; it has no operators but onnxruntime's own; and it repeats the golden logits. What it computes for other
images, how long it takes and how much memory, nothing here says: open bundles of people you trust.
"""

from pathlib import Path

import onnxruntime

from natix_lib.cpus import cpu_threads
from natix_lib.errors import BundleError

INPUT, OUTPUT = "pixel_values", "logits"
FATAL = 4  # onnxruntime's severity; what it has to say of an error is in the exception


def open_session(path: Path, image_size: int, classes: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU.

    Args:
        path: Path of model.onnx, its weights beside it.
        image_size: Side S of the images that it must take, in pixels.
        classes: Number of classes C, which is how many logits it must give.

    Returns:
        A session from `pixel_values` float32 (n, 3, S, S) to `logits` float32 (n, C), any n.

    Raises:
        BundleError: If onnxruntime cannot open it, or it takes or gives anything else.
        ConfigError: If OMP_NUM_THREADS is no number.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = cpu_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would take a server's cores
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise BundleError(f"{path} is no model that onnxruntime opens: {error}") from error
    ends = (("take", session.get_inputs(), INPUT, [3, image_size, image_size]),
            ("give", session.get_outputs(), OUTPUT, [classes]))  # fmt: skip
    for verb, values, name, shape in ends:
        actual = [(value.name, value.type, value.shape) for value in values]
        if [(value.name, value.type, value.shape[1:]) for value in values] != [(name, "tensor(float)", shape)] or (
            isinstance(values[0].shape[0], int)
        ):
            raise BundleError(f"{path} must {verb} {name}, float of shape {['n', *shape]}, for any n; got {actual}")
    return session
