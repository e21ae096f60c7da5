"""Queries for a corpus that has none: an LLM writes them about its documents, and filters keep the good ones."""
