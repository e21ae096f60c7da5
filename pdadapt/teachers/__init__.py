"""Teachers judge single documents (points) and pairs of documents (pairs)."""
