"""The model: built, adapted, and made to compute as the config says."""
