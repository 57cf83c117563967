"""The wizard: from an idea to a run that one watches, in a terminal. It shows what core decides."""
