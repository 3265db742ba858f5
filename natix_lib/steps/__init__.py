"""One file a step: the only code that opens artifacts and calls the mathematics."""

from natix_lib.steps import pod

pod.begin()  # here, because every component's body begins with this package
