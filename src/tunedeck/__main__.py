"""`python -m tunedeck` is `tunedeck`."""

from .core.cli.main import main

main()
