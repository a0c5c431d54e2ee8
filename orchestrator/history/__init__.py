"""Reading jobs back, purely: which events to show, what they add up to, and a script that replays them."""
