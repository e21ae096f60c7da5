"""Index a corpus and rank its documents for queries: engines, search, fusion."""
