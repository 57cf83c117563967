"""DGX Cloud Lepton, by its HTTP API."""
