"""The user's files: which directory, whose, what is hidden or read-only, and how it is mounted."""
