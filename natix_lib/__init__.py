"""natix: labelled street images to a roadwork classifier that can be trusted."""

__version__ = "0.1.0"
