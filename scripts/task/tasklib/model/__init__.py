"""The base model with its adapter, tokens and prompts, and the memory they take."""
