"""Secrets of a job, derived from its key, so that an orchestrator that takes the job up again knows them too."""

import hashlib
import hmac

KEY_BYTES = 32


def derive(key: bytes, *parts: str | int) -> str:
    """Derive a secret of 256 bits, in hex, for what `parts` name; nobody without the key can tell it."""
    named = "\0".join(f"{len(str(part))}:{part}" for part in parts)
    return hmac.new(key, named.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def session_key(key: bytes, sandbox: str, run_id: str, attempt: int) -> str:
    """What every connection of a Sandbox presents once it has its Run."""
    return derive(key, "session", sandbox, run_id, attempt)


def proxy_credential(key: bytes, run_id: str, skill_name: str) -> str:
    """What opens the proxy to the hosts of one skill in one Run."""
    return derive(key, "proxy", run_id, skill_name)
