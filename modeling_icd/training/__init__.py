"""Training: arguments, collator, hidden-state cache, Trainer glue. Nothing here travels with the weights."""
