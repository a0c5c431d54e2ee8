"""Values that cross between host and container. All are frozen; the package imports msgspec only."""
