"""Queries for a corpus that brings none: an LLM writes them about its documents, and filters keep the good ones."""
