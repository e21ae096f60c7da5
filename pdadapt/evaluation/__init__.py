"""Measures, paired tests, agreement with the teacher, and the verdict of a run."""
