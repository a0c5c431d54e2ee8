import pytest

from orchestrator.backends.docker.endpoint import SshEndpoint
from orchestrator.backends.docker.ssh_failures import SshError, found_socket, ssh_ended

FAR = SshEndpoint("far", "me", 2222)

UNKNOWN = """No ED25519 host key is known for far and you have requested strict checking.\r
Host key verification failed.\r
"""
CHANGED = """@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@
Offending ED25519 key in /home/me/.ssh/known_hosts:3
Host key verification failed.
"""
LOGIN = "Welcome to this machine.\nme@far: Permission denied (publickey,password).\n"
NAME = "ssh: Could not resolve hostname far: Name or service not known\r\n"
REFUSED = "ssh: connect to host far port 2222: Connection refused\r\n"
OTHER = "/home/me/.ssh/config: line 3: Bad configuration option: x\n"


@pytest.mark.parametrize(
    ("report", "cause", "last", "remedy"),
    [
        (UNKNOWN, "its host key is not known", "Host key verification failed", "run `BY HAND` once and compare"),
        (CHANGED, "another machine may be answering", "Host key verification failed", "remove the old key as ssh"),
        (LOGIN, "it accepts none of your keys", "me@far: Permission denied (publickey,password)", "with `ssh-add`"),
        (NAME, "its host has no address", "Could not resolve hostname far: Name or service not known", "check the"),
        (REFUSED, "it is not reached", "connect to host far port 2222: Connection refused", "and that sshd runs there"),
        (OTHER, "ssh failed", "/home/me/.ssh/config: line 3: Bad configuration option: x", "run `BY HAND` to see why"),
    ],
)
def test_a_report_of_ssh_becomes_a_sentence(report: str, cause: str, last: str, remedy: str) -> None:
    """The sentence has the address, the cause, what ssh wrote last, and what to do."""
    told = str(ssh_ended(FAR, "BY HAND", report))
    assert told.startswith("no connection to the Docker engine at ssh://me@far:2222: ")
    assert cause in told.partition(" (ssh: ")[0]
    assert f" (ssh: {last}); " in told
    assert remedy in told.rpartition("; ")[2]


def test_silence_of_ssh_is_a_sentence_too() -> None:
    """Nothing is quoted where nothing was written."""
    told = str(ssh_ended(FAR, "BY HAND", ""))
    assert told == "no connection to the Docker engine at ssh://me@far:2222: ssh failed; run `BY HAND` to see why"


def test_the_last_line_of_the_other_machine_counts() -> None:
    """Login shells print what they like before it."""
    assert found_socket(FAR, "Welcome!\nusable /run/user/7/a b.sock\n") == "/run/user/7/a b.sock"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("denied /var/run/docker.sock\n", "me may not use .* add that user to the group of /var/run/docker.sock"),
        ("", r"no Docker engine runs at ssh://me@far:2222, .* name the socket as in ssh://far/run/docker\.sock"),
        ("usable\n", "no Docker engine runs at"),
    ],
)
def test_a_machine_without_a_usable_socket_is_an_error(answer: str, message: str) -> None:
    """A user who may not use the engine learns more than that none answers."""
    with pytest.raises(SshError, match=message):
        found_socket(FAR, answer)
