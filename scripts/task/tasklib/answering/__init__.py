"""Prompts -> answers, by the model in this process or by one behind an endpoint."""
