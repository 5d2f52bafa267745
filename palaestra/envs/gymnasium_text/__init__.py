"""Any of Gymnasium's environments in words: `words` has better ones for those that people know, `env` plays them."""
