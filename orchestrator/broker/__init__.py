"""A Sandbox's only way out: it gives it its Run, takes its checkpoints, calls the model, proxies allowed egress."""
