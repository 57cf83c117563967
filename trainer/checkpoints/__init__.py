"""What a run leaves to continue from and to use."""
