"""A program in place of the runtime that sends events at a given rate and ends normally, without a model.

After its first event it waits for the file GO in the workspace, so that many can send at the same time.
"""

from tests.support.raw_protocol_client import ATTACHED

PYTHON = "/opt/perstack/bin/python"
GO = "go"

PROGRAM = (
    ATTACHED
    + """
COUNT, RATE = int(sys.argv[1]), float(sys.argv[2])
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
def say(seq):
    tell(seq, type="streamRunResult", delta="piece %d of an Expert's reply, and some more words of it." % seq)
say(1)
while not os.path.exists("/workspace/go"):
    time.sleep(0.05)
began = time.monotonic()
for seq in range(2, COUNT):
    say(seq)
    wait = began + seq / RATE - time.monotonic()
    if wait > 0:
        time.sleep(wait)
send({"type": "keepCheckpoint", "id": "c", "checkpoint": checkpoint})
receive()
head = {name: value for name, value in checkpoint.items() if name != "messages"}
step = {"stepNumber": 1, "startedAt": 1}
tell(COUNT, type="completeRun", checkpoint=head, step=step, text="done", usage=checkpoint["usage"])
"""
)


def command(count: int, rate: float) -> tuple[str, ...]:
    """What a Sandbox runs to tell `count` events, `rate` a second at most."""
    return (PYTHON, "-I", "-c", PROGRAM, str(count), str(rate))
