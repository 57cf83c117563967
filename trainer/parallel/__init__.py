"""How the ranks of a run share the work: one file for each kind of parallelism."""
