"""What somebody else may have put on a disk: read, made and deleted by descriptor, with the standard library alone."""
