"""The command line `perstack-orch`: one module per command, found through the table in `app`."""
