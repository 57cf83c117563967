"""Launch fine-tuning runs anywhere, and repeat them with one command.

The three layers are subpackages: `core` decides, renders, submits and records; `trainer` is what
runs on the GPUs; `tui` is the wizard. Their folders lie at the root of the repository and are
linked here, so that every tool sees one package called `tunedeck`.
"""

__version__ = "0.1.0"
