"""How palaestra-tiny was made: recorded play, its tokenizer, and the training on it."""
