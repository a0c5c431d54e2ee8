"""A Sandbox's only way out: hands over its Run, takes its checkpoints, calls the model, forwards allowed egress."""
