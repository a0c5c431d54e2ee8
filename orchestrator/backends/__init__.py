"""Where Sandboxes run. Each backend is a stranger to the others; what they agree on is `orchestrator.sandbox`."""
