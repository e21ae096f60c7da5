"""The run folder: its paths, its settings, what it says when it is read back."""
