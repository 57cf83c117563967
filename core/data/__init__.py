"""A run's data before it is launched: found, counted, and shown token by token."""
