"""Training a model: its arguments, notes, batches and Trainer, checkpoints, and what a run saves."""
