"""Train the student on training lists: losses, Hugging Face's Trainer, memory, resuming, early stopping."""
