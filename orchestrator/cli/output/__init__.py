"""What the command line shows: pure texts, and where they are written."""
