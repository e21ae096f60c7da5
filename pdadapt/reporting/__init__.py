"""What a person reads of a run: tables, the page, its status, and a checkpoint for other tools."""
