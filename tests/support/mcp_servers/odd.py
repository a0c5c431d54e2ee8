"""Servers that are none: `odd.py exit|silent|garbage|stubborn`."""

import signal
import sys
import time

how = sys.argv[1]
if how == "exit":
    sys.exit("no token was given")
if how == "garbage":
    print("Welcome to the server!", flush=True)  # noqa: T201 - what it is for
    sys.exit(3)
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
