"""A job from its start to its end: runner, tree of Runs, attempts, delegation, resume, outcome."""
