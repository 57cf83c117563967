"""An adapter and its base become one model."""
