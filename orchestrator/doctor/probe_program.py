"""A program that a Sandbox runs to look at its network, and how it is started there."""

from msgspec.json import Decoder

from orchestrator.doctor.engine import NetworkProbe
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire.frames import read_frame
from orchestrator.wire.frozen import read_json
from orchestrator.wire.terminal import OUTWARD, ProgramEnded, Shown

SKILL = "network"
_INTERPRETER = "/opt/perstack/bin/python"
_OUTPUT_BYTES = 64 * 1024
_PROBE = Decoder(NetworkProbe)

_PROGRAM = """
import base64, json, os, socket, ssl, sys
from urllib.parse import urlsplit
host = sys.argv[1]
devices = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
try:
    # An address that no machine has (RFC 5737): a Sandbox without a network fails at once.
    socket.create_connection(("192.0.2.1", 443), 2).close()
    direct = None
except OSError as error:
    direct = error.strerror or str(error)
try:
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((proxy.hostname, proxy.port), 5) as way:
        pair = f"{proxy.username or ''}:{proxy.password or ''}".encode()
        head = f"CONNECT {host}:443 HTTP/1.1\\r\\nHost: {host}:443\\r\\n"
        head += f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}\\r\\n\\r\\n"
        way.settimeout(12)
        way.sendall(head.encode())
        answer = way.recv(4096).decode("latin-1").splitlines()[0].partition(" ")[2]
        if answer.startswith("2"):
            # No data is sent, so the certificate does not matter.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.wrap_socket(way, server_hostname=host).close()
except (OSError, KeyError, IndexError) as error:
    answer = f"{type(error).__name__}: {error}"
print(json.dumps({"devices": devices, "direct": direct, "proxied": answer[:400]}))
"""


def command(host: str) -> tuple[str, ...]:
    """Return the command that probes the network from inside, with `host` as the one declared host."""
    return (_INTERPRETER, "-I", "-c", _PROGRAM, host)


class ProbeOutput:
    """Receives the program's output; `result` is what it found, None if it printed something else."""

    def __init__(self) -> None:
        self._output = bytearray()
        self.code: int | None = None

    async def attend(self, stream: FrameStream) -> None:
        """Read until the program ends."""
        while self.code is None:
            match await read_frame(stream.reader, OUTWARD):
                case Shown(data=data):
                    self._output += data[: _OUTPUT_BYTES - len(self._output)]
                case ProgramEnded(code=code):
                    self.code = code

    @property
    def result(self) -> NetworkProbe:
        """What the program found.

        Raises:
            WireError: it printed something else.
        """
        return read_json(_PROBE, bytes(self._output))
