import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.config import load
from orchestrator.config.remote import check_url, download, is_url
from orchestrator.errors import ConfigError

LIMIT = 1024 * 1024
BODIES = {"/config": b"maxSteps = 3\n", "/most": b"#" * LIMIT, "/more": b"#" * (LIMIT + 1)}


class Pages(BaseHTTPRequestHandler):
    """Serves a few pages, one of them a redirect to another host."""

    def do_GET(self) -> None:
        """Respond to a request."""
        body = BODIES.get(self.path, b"")
        self.send_response(302 if self.path == "/moved" else 200 if self.path in BODIES else 404)
        if self.path == "/moved":
            self.send_header("Location", "/config")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Write no log."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a real server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=5)


@pytest.mark.behaviour("A3")
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://raw.githubusercontent.com/a", "must begin with https://"),
        ("HTTP://raw.githubusercontent.com/a", "must begin with https://"),
        ("ftp://raw.githubusercontent.com/a", "must begin with https://"),
        ("https://github.com/a", "must be on raw.githubusercontent.com; download the file and name it with --config"),
        ("https://raw.githubusercontent.com.evil.example/a", "must be on raw.githubusercontent.com"),
        ("https://raw.githubusercontent.com@evil.example/a", "must be on raw.githubusercontent.com"),
        ("https://evil.example@raw.githubusercontent.com/a", "must be on raw.githubusercontent.com"),
        ("https://raw.githubusercontent.com:8443/a", "must be on raw.githubusercontent.com"),
        ("https://[::1/a", "is not a URL"),
    ],
)
def test_other_urls_are_rejected(url: str, problem: str) -> None:
    """Only https on GitHub's host for raw files is fetched."""
    with pytest.raises(ConfigError) as raised:
        load(url)
    assert str(raised.value).startswith(f"config URL {url!r} {problem}")


@pytest.mark.behaviour("A3")
def test_the_one_host_is_accepted() -> None:
    """Its name counts in any case of letters; file names are no URLs."""
    check_url("HTTPS://Raw.GitHubUserContent.com/o/r/main/perstack.toml")
    assert not is_url("configs/perstack.toml")


@pytest.mark.behaviour("A3")
def test_a_file_is_fetched_whole(site: str) -> None:
    """The body may have up to 1 MiB."""
    assert download(f"{site}/config") == BODIES["/config"]
    assert len(download(f"{site}/most")) == LIMIT


@pytest.mark.behaviour("A3")
@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/moved", "is redirected, which is refused; check it in a browser"),
        ("/nowhere", "returned status 404; check it in a browser"),
        ("/more", "returned more than 1048576 bytes, too much for a config; name another with --config"),
    ],
)
def test_redirects_and_failures_are_readable(site: str, path: str, problem: str) -> None:
    """A redirect is not followed, and each failure is one sentence."""
    with pytest.raises(ConfigError) as raised:
        download(site + path)
    assert str(raised.value) == f"config URL {site + path!r} {problem}"


@pytest.mark.behaviour("A3")
def test_a_host_that_does_not_answer_is_an_error(site: str) -> None:
    """The error is one sentence."""
    with pytest.raises(ConfigError, match=r"cannot be fetched: .*refused"):
        download(site.rpartition(":")[0] + ":1/config")
