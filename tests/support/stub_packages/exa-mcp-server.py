"""Stands in for the package of the news example where there is no network: the same tool, and answers made up here."""

import os

from mcp.server import MCPServer

server = MCPServer("exa-mcp-server", version="0.0.0", log_level="ERROR")


@server.tool(structured_output=False)
def web_search_exa(query: str, numResults: int = 5) -> str:  # noqa: N803 - the package's own spelling
    """Search the web."""
    os.environ["EXA_API_KEY"]
    return "\n".join(f"https://news.example/{number}: {query}" for number in range(numResults))


@server.tool(structured_output=False)
def crawling_exa(url: str) -> str:
    """Read a page; the example does not pick it."""
    return url


server.run("stdio")
