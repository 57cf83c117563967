"""Where a run can be sent: one module or folder a backend, behind one protocol."""
