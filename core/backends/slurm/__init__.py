"""Slurm behind an SSH login, or on the login node itself."""
