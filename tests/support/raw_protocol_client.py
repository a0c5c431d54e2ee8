"""A program that uses a Sandbox's protocol without the runtime; it runs alone in its interpreter."""

ATTACHED = """
import json, os, socket, sys, time
link = socket.socket(socket.AF_UNIX)
link.connect("/run/perstack/gate/in/broker.sock")
def send(value):
    body = json.dumps(value).encode()
    link.sendall(len(body).to_bytes(4, "big") + body)
def receive():
    size = int.from_bytes(link.recv(4, socket.MSG_WAITALL), "big")
    return json.loads(link.recv(size, socket.MSG_WAITALL))
send({"type": "attach"})
run = receive()["run"]
"""
"""It has its Run in `run`, and can `send` and `receive` frames."""
