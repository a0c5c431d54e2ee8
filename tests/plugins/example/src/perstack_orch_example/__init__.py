"""A provider and a backend for perstack-orch, written from docs/extending.md alone."""
