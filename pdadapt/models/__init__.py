"""Models by name: found, checked, loaded; where they compute and how much fits."""
