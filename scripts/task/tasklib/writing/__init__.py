"""Cards and guides, and what is sent to the Hub."""
