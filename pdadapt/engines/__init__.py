"""Engines: a student's embeddings of a corpus, searched."""
