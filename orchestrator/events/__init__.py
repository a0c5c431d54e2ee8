"""From lines of a Sandbox to events: each once, in order, none lost."""
