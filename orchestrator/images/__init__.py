"""The images that belong to this version: what goes into them, and their names."""
