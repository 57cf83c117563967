"""Configs: YAML with inheritance, overrides and interpolation, checked against a schema."""
