"""The user's own server, reached by ssh: what runs there, what travels, what comes back."""
