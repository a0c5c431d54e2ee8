"""A job that a coordinator works in a cluster, and those who watch it from elsewhere."""
