"""Packages that skills are started from: installed and inspected in one-off Sandboxes."""
