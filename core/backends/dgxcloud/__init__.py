"""DGX Cloud Run:ai, by its HTTP API."""
