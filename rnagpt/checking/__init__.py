"""What an LLM of any family can do exactly in RNA-GPT: computed on a tiny twin of it, before weights are read."""
