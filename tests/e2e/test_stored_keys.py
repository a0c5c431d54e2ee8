"""Keys in the system's keyring, through a real keyring in a file, as a user sets and uses them."""

import json
from pathlib import Path

import pytest

from tests.support import fake_anthropic as api
from tests.support.fake_http import fake_http
from tests.support.project import COMMAND, ONE, Project, Result, ended, refused
from tests.support.pty_user import typist

STORED, IN_ENVIRONMENT, IN_FILE = "canary-stored-1f", "canary-environment-2e", "canary-file-3d"
SAID = api.stream([api.start(), *api.text(0, "all done"), *api.stop("end_turn")])
NO_KEYRING = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
FAILING = """
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 5
    def get_password(self, service, username):
        raise OSError("canary-stored-1f is locked")
    def set_password(self, service, username, password):
        raise OSError(f"{password} is locked")
    def delete_password(self, service, username):
        raise OSError("locked")
"""


class Keyed:
    """A project without a key, and a keyring in a file apart from others."""

    def __init__(self, directory: Path) -> None:
        self.project = Project(directory / "project", "process")
        self.project.directory.mkdir()
        (self.project.directory / "perstack.toml").write_text(ONE)
        self.environ = {
            "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
            "XDG_DATA_HOME": str(directory / "data"),
            "XDG_STATE_HOME": str(directory / "state"),
            "PYTHONPATH": str(directory),
        }
        (directory / "state").mkdir()
        (directory / "failing_keyring.py").write_text(FAILING)

    async def key(self, *arguments: str, stdin: str | None = None, **env: str) -> Result:
        """Run `key`; its output never has the key that it stores."""
        result = await ended(await self.project.start("key", *arguments, env=self.environ | env, stdin=stdin))
        assert STORED not in result.stdout.decode() + result.stderr
        return result

    async def used_key(self, **env: str) -> str:
        """Run a job, and return the key that the model's API got."""
        async with fake_http(SAID) as fake:
            given = self.environ | {"ANTHROPIC_BASE_URL": fake.url} | env
            result = await self.project.run("one", "go", "--provider", "anthropic", env=given)
            assert result.code == 0, result.stderr
            shown = b"".join((result.stdout, result.stderr.encode(), *self.project.files()))
            assert STORED.encode() not in shown
            return fake.received[0].headers["authorization"].removeprefix("Bearer ")

    async def explained(self, **env: str) -> dict[str, str]:
        """Return where `explain` found keys."""
        result = await self.project.command("explain", "--backend", "process", "--json", "one", env=self.environ | env)
        keys: dict[str, str] = json.loads(result.stdout)["work"].get("keys", {})
        return keys


@pytest.fixture
def keyed(tmp_path: Path) -> Keyed:
    """Make the project and its keyring."""
    return Keyed(tmp_path)


async def test_a_stored_key_is_used_after_environment_and_env_file(keyed: Keyed) -> None:
    """Environment, env file and keyring in this order; `explain` names the place, and never the value."""
    env_file, variable = keyed.project.directory / ".env", "ANTHROPIC_API_KEY"
    assert await keyed.explained() == {}
    result = await keyed.key("set", "anthropic", stdin=f"{STORED}\n")
    assert result.code == 0, result.stderr
    assert "ANTHROPIC_API_KEY is in the keyring file PlaintextKeyring now" in result.stderr
    assert "may store keys without encryption" in result.stderr
    assert (await keyed.used_key(), await keyed.explained()) == (STORED, {variable: "the keyring"})
    env_file.write_text(f"ANTHROPIC_API_KEY={IN_FILE}\n")
    assert (await keyed.used_key(), await keyed.explained()) == (IN_FILE, {variable: ".env"})
    own = {variable: IN_ENVIRONMENT}
    assert (await keyed.used_key(**own), await keyed.explained(**own)) == (
        IN_ENVIRONMENT,
        {variable: "the environment"},
    )
    listed = await keyed.key("list", **own)
    assert [line.split()[:5] for line in listed.stdout.decode().splitlines()] == [
        ["anthropic", "ANTHROPIC_API_KEY", "environment,", "then", "keyring"],
        ["google", "GOOGLE_GENERATIVE_AI_API_KEY", "none"],
        ["deepseek", "DEEPSEEK_API_KEY", "none"],
        ["openai", "OPENAI_API_KEY", "none"],
        ["azure-openai", "AZURE_API_KEY", "none"],
    ]
    env_file.unlink()
    assert (await keyed.key("remove", "anthropic")).code == 0
    assert await keyed.explained() == {}
    refused(await keyed.key("remove", "anthropic"), 2, "the keyring has no key of provider 'anthropic'")


async def test_a_key_is_typed_without_echo(keyed: Keyed) -> None:
    """At a terminal the command asks, and the terminal does not show the answer."""
    environ = keyed.project.environment | keyed.environ
    with typist([*COMMAND, "key", "set", "openai"], keyed.project.directory, environ) as user:
        user.see("OPENAI_API_KEY: ")
        user.type(f"{STORED}\n")
        user.see("OPENAI_API_KEY is in the keyring")
        assert user.end() == 0
    assert STORED not in user.text


@pytest.mark.parametrize("given", ["", "\n", "two words\n", "caf\u00e9\n"])
async def test_what_is_no_key_is_refused(keyed: Keyed, given: str) -> None:
    """Nothing is stored, and the sentence does not repeat the input."""
    result = await keyed.key("set", "anthropic", stdin=given)
    refused(result, 2, "ANTHROPIC_API_KEY")
    assert "two words" not in result.stderr
    assert await keyed.explained() == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("set",), "key set needs a provider: one of anthropic, azure-openai, deepseek, google, openai"),
        (("set", "ollama"), "provider 'ollama' needs no key"),
        (("set", "antropic"), "did you mean 'anthropic'?"),
        (("show", "anthropic"), "'show' is not one of"),
    ],
)
async def test_a_wrong_argument_gets_one_sentence(keyed: Keyed, arguments: tuple[str, ...], sentence: str) -> None:
    """The command names what it accepts."""
    refused(await keyed.key(*arguments, stdin=STORED), 2, sentence)


@pytest.mark.parametrize("action", ["set", "remove", "list"])
async def test_a_machine_without_a_keyring_says_so(keyed: Keyed, action: str) -> None:
    """One sentence names the other places for a key, also before a key is typed."""
    provider = () if action == "list" else ("anthropic",)
    result = await keyed.key(action, *provider, stdin=STORED, **NO_KEYRING)
    refused(result, 2, "no keyring is usable here;", "set the key in the environment, or write it to .env")
    missing = await keyed.project.run("one", "go", "--provider", "anthropic", env=keyed.environ | NO_KEYRING)
    refused(missing, 2, "provider 'anthropic' cannot be used: ANTHROPIC_API_KEY is not set")


async def test_a_keyring_that_fails_shows_no_key(keyed: Keyed) -> None:
    """Its error, which contains the key, is not shown; a job reports it together with the missing key."""
    failing = {"PYTHON_KEYRING_BACKEND": "failing_keyring.Keyring"}
    refused(await keyed.key("set", "anthropic", stdin=STORED, **failing), 2, "the keyring cannot be used (OSError)")
    missing = await keyed.project.run("one", "go", "--provider", "anthropic", env=keyed.environ | failing)
    refused(missing, 2, "ANTHROPIC_API_KEY is not set", "the keyring cannot be used (OSError)")
    assert STORED not in missing.stderr
    assert await keyed.used_key(ANTHROPIC_API_KEY=IN_ENVIRONMENT, **failing) == IN_ENVIRONMENT
