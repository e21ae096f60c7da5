"""Read and write corpora, queries, qrels and runs, and report what is wrong with their files."""
