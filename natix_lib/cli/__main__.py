"""`python -m natix_lib.cli`."""

from natix_lib.cli import main

main()
