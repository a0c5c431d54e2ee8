"""`make soak`: what is lost, repeated or left behind when everything around a job goes wrong, counted."""
