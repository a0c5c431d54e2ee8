"""Sandboxes of a job: launched, prewarmed, handed to Runs, removed; one-off Sandboxes."""
