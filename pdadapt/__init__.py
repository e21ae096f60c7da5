"""pdadapt: adapt a ColBERT retriever to a corpus without relevance judgments (PairDistill, EMNLP 2024)."""

__version__ = "0.1.0"
