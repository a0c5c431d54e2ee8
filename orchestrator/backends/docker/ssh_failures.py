"""Why `ssh` reaches no engine, as a sentence: from what ssh writes, or what the other machine prints; pure."""

import re

from orchestrator.backends.docker.endpoint import SshEndpoint

_CHANGED_KEY = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Offending .* key in", re.IGNORECASE)
_UNKNOWN_KEY = re.compile(r"Host key verification failed|No .* host key is known", re.IGNORECASE)
_LOGIN = re.compile(r"Permission denied|Too many authentication failures", re.IGNORECASE)
_NO_NAME = re.compile(r"Could not resolve hostname", re.IGNORECASE)
_NO_ROUTE = re.compile(
    r"Connection (refused|timed out|reset|closed)|No route to host|Network is unreachable|Operation timed out"
    r"|kex_exchange_identification|Timeout, server",
    re.IGNORECASE,
)
_QUOTED_CHARACTERS = 300


class SshError(OSError):
    """There is no connection through ssh; the text is a whole sentence for the user."""


def not_installed(endpoint: SshEndpoint) -> SshError:
    """Explain that the program ssh is missing."""
    return SshError(f"the Docker engine at {endpoint.address} is reached by ssh, which is not in PATH: install ssh")


def not_logged_in(endpoint: SshEndpoint, by_hand: str, seconds: float) -> SshError:
    """Explain that ssh is silent; `by_hand` is the command that logs in there."""
    return SshError(
        f"ssh to the Docker engine at {endpoint.address} did not log in within {seconds:.0f} s: run `{by_hand}` to see"
        " why"
    )


def ssh_ended(endpoint: SshEndpoint, by_hand: str, report: str) -> SshError:
    """Explain why ssh ended, from its `report`, whose last line is quoted; `by_hand` is the command that logs in."""
    if _CHANGED_KEY.search(report):
        cause = "its host key is not the known one, so another machine may be answering"
        remedy = f"if it was set up again, run `{by_hand}` and remove the old key as ssh explains"
    elif _UNKNOWN_KEY.search(report):
        cause, remedy = "its host key is not known", f"run `{by_hand}` once and compare the fingerprint"
    elif _LOGIN.search(report):
        cause = "it accepts none of your keys, and ssh may not ask for a password"
        remedy = "load your key with `ssh-add`, or install it there with `ssh-copy-id`"
    elif _NO_NAME.search(report):
        cause, remedy = "its host has no address", "check the host's name"
    elif _NO_ROUTE.search(report):
        cause, remedy = "it is not reached", "check its host and port, and that sshd runs there"
    else:
        cause, remedy = "ssh failed", f"run `{by_hand}` to see why"
    last = _last_line(report)
    quoted = f" (ssh: {last})" if last else ""
    return SshError(f"no connection to the Docker engine at {endpoint.address}: {cause}{quoted}; {remedy}")


def found_socket(endpoint: SshEndpoint, answer: str) -> str:
    """Return the path that the other machine printed: `usable PATH`, `denied PATH`, or nothing.

    Raises:
        SshError: it has no socket that this user may use.
    """
    # A login shell may print something first.
    verdict, _, path = (answer.strip().splitlines() or [""])[-1].partition(" ")
    if verdict == "usable" and path:
        return path
    if verdict == "denied" and path:
        message = (
            f"{endpoint.user or 'your user there'} may not use the Docker engine at {endpoint.address}: add that user"
            f" to the group of {path}"
        )
        raise SshError(message)
    message = (
        f"no Docker engine runs at {endpoint.address}, or its socket is at an unusual place: start one there, or name"
        f" the socket as in ssh://{endpoint.host}/run/docker.sock"
    )
    raise SshError(message)


def does_not_answer(endpoint: SshEndpoint, path: str) -> SshError:
    """Explain that a socket exists there which leads to no engine.

    OpenSSH 9.2 reports the same if sshd may not forward it (sshd_config(5), AllowStreamLocalForwarding).
    """
    return SshError(
        f"the Docker engine at {endpoint.address} does not answer at {path} there: start it on that machine, or set"
        " `AllowStreamLocalForwarding yes` in its sshd_config"
    )


def _last_line(report: str) -> str:
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    return lines[-1].removeprefix("ssh: ").rstrip(".")[:_QUOTED_CHARACTERS] if lines else ""
