"""Engines: each makes a corpus searchable on disk, and searches it."""
