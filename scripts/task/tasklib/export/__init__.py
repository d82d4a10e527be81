"""From a trained run to a model that others serve, with the contract that makes it answer the same there."""
