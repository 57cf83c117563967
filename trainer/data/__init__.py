"""From files of chat rows to the micro-batches of each step."""
