"""What is known of the rows: faults, decisions, duplicates, splits, the processed files."""
