"""The command line: thin. Parse, call core, print."""
