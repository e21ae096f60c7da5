"""Engines: a corpus made searchable on disk, and searched."""
