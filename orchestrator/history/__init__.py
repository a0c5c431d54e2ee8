"""Reading jobs back: which events to show, their totals, and a script that replays them. Pure functions."""
