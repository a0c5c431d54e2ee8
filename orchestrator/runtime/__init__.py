"""The code inside a Sandbox: the agent loop, its skills and its built-in tools."""
