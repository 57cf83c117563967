"""TOML read so that each key is traced to its line, and written so that it is pleasant to read."""
