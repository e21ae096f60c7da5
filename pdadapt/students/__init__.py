"""Students: the retrievers that are adapted."""
