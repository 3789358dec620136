"""Makes a generative coder of a language model: by its prompt alone, by learning from notes, or by rewards for its answers."""
