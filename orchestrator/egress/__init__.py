"""Connections from Sandboxes to declared hosts: policy, proxy, tunnels."""
