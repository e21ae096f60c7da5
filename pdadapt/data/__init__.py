"""Corpora, queries, qrels and runs: what files hold, and what is wrong with them."""
