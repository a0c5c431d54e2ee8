"""Secrets of a job, derived from its key, so that an orchestrator that resumes the job knows them too."""

import hashlib
import hmac

from orchestrator.wire.identity import AttemptRef

KEY_BYTES = 32


def derive(key: bytes, *parts: str | int) -> str:
    """Derive a secret of 256 bits, in hex, for `parts`; it cannot be computed without the key."""
    named = "\0".join(f"{len(str(part))}:{part}" for part in parts)
    return hmac.new(key, named.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def session_key(key: bytes, sandbox: str, attempt: AttemptRef) -> str:
    """Return the key that every connection of a Sandbox presents once it has this attempt."""
    return derive(key, "session", sandbox, attempt.run_id, attempt.attempt)


def proxy_credential(key: bytes, run_id: str, skill_name: str) -> str:
    """Return the credential for the proxy to the hosts of one skill in one Run."""
    return derive(key, "proxy", run_id, skill_name)
