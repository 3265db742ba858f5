"""Seeds for torch's generators, which take 64 bits.

A seed of the config has at most 53 and is handed to torch as it is; what is made of it may have more. numpy's
generators take whole numbers of any size. To allow smaller seeds alone was rejected: which would be small enough hangs
on how many epochs or micro-batches a run has.
"""

STRIDE = 1_000_003  # numbers from which on the seeds of two neighbours meet


def torch_seed(seed: int) -> int:
    """The seed modulo 2**64: all that torch takes by itself stays as it is."""
    return seed % 2**64


def numbered_seed(seed: int, number: int) -> int:
    """A seed for the epoch or micro-batch of a number, from 0."""
    return torch_seed(seed * STRIDE + number)
