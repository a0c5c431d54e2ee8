"""File operations by descriptor, safe where others can write. Uses the standard library only."""
