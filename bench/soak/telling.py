"""A program in place of the runtime that tells events at a rate and ends as it should, without a model."""

PYTHON = "/opt/perstack/bin/python"

PROGRAM = """
import json, os, socket, sys, time
COUNT, RATE = int(sys.argv[1]), float(sys.argv[2])
link = socket.socket(socket.AF_UNIX)
link.connect("/run/perstack/broker.sock")
def send(value):
    body = json.dumps(value).encode()
    link.sendall(len(body).to_bytes(4, "big") + body)
def receive():
    size = int.from_bytes(link.recv(4, socket.MSG_WAITALL), "big")
    return json.loads(link.recv(size, socket.MSG_WAITALL))
send({"open": "attach"})
run = receive()["run"]
spool = os.open("/run/perstack/events.jsonl", os.O_WRONLY | os.O_APPEND)
checkpoint = run["checkpoint"] | {"status": "completed"}
common = {"jobId": run["jobId"], "runId": run["runId"], "attempt": run["attempt"], "stepNumber": 1}
common["expertKey"] = run["expert"]["key"]
def tell(seq, **fields):
    event = {"id": "e%d" % seq, "timestamp": time.time_ns() // 1000000, "seq": seq}
    line = (json.dumps(event | common | fields) + "\\n").encode()
    os.write(spool, line)
    while line:
        line = line[os.write(1, line):]
began = time.monotonic()
for seq in range(1, COUNT):
    tell(seq, type="streamRunResult", delta="piece %d of what an Expert says, and some more words of it" % seq)
    wait = began + seq / RATE - time.monotonic()
    if wait > 0:
        time.sleep(wait)
send({"call": "checkpoint", "id": "c", "checkpoint": checkpoint})
receive()
head = {name: value for name, value in checkpoint.items() if name != "messages"}
step = {"stepNumber": 1, "startedAt": 1}
tell(COUNT, type="completeRun", checkpoint=head, step=step, text="done", usage=checkpoint["usage"])
"""


def command(count: int, rate: float) -> tuple[str, ...]:
    """What a Sandbox runs to tell `count` events, `rate` a second at most."""
    return (PYTHON, "-I", "-c", PROGRAM, str(count), str(rate))
