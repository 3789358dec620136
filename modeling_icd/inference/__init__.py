"""From notes to logits: loading a model, tokenizing, and the loop over batches, with a cache of hidden states."""
