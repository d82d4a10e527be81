"""What two scripts of a task must agree on: documents, prompts, parsing, metrics, splits, run records.

No module in here imports torch, transformers or trl at its top: `--help` and validation stay fast.
"""
