"""What crosses between host and container, as frozen values; imports msgspec only."""
