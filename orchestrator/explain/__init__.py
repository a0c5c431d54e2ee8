"""What a job may read, reach and use, before it runs."""
