"""What a Sandbox is: the seam to backends, its name, keys, authority and socket directory."""
