"""Training lists -> checkpoint: the losses, the trainer, its memory."""
