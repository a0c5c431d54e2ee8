"""Whether a job could run here: each part that a job needs is checked, and has a remedy if it is missing."""
