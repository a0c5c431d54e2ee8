"""Stands in for the package of the news example where there is no network: the same tool, and answers made up here.

tools.py, of the MCP servers for tests, must be next to it.
"""

import os
import runpy
from pathlib import Path


def web_search_exa(query: str, numResults: int) -> str:  # noqa: N803 - the package's own spelling
    """Search the web."""
    os.environ["EXA_API_KEY"]
    return "\n".join(f"https://news.example/{number}: {query}" for number in range(numResults))


def crawling_exa(url: str) -> str:
    """Read a page; the example does not pick it."""
    return url


serve = runpy.run_path(str(Path(__file__).with_name("tools.py")))["serve"]
serve("exa-mcp-server", "0.0.0", web_search_exa=web_search_exa, crawling_exa=crawling_exa)
