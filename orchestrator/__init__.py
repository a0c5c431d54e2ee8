"""Run Experts, each in a container of its own.

The public names are imported on first use: the container has only part of this package's dependencies,
and must be able to import `orchestrator.runtime` without the host's.
"""
