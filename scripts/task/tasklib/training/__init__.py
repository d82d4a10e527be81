"""From processed rows to an adapter: the proof of the mask, the trainer, checkpoints, log."""
