"""Project data in the frame of the site: version, and repository if pyproject.toml has one."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def repository(pyproject: str) -> str | None:
    """The URL under `[project.urls]`, `Repository`; None if there is none.

    Args:
        pyproject: the text of pyproject.toml.
    """
    urls: Mapping[str, str] = tomllib.loads(pyproject)["project"].get("urls", {})
    # Installers compare these labels without regard to case and punctuation.
    found = {"".join(filter(str.isalnum, label)).lower(): url for label, url in urls.items()}
    return found.get("repository", "").rstrip("/") or None


def clone_line(pyproject: str) -> str | None:
    """The command that clones the repository and enters it; None if pyproject.toml has no URL."""
    url = repository(pyproject)
    return url and f"git clone {url} d2v && cd d2v"


def clone_text(pyproject: str) -> str:
    """First lines of the page on installing, MyST."""
    line = clone_line(pyproject)
    return f"```console\n$ {line}\n```\n" if line else "Get a copy of the repository and change to its folder.\n"


def file_link(pyproject: str, path: str) -> str | None:
    """URL of a file of the repository; None if pyproject.toml has no repository."""
    url = repository(pyproject)
    return url and f"{url}/blob/main/{path}"


def theme_options(pyproject: str, version: str) -> dict[str, Any]:
    """Options of the theme: with a repository, each page links to its source and the footer to the repository."""
    options: dict[str, Any] = {"navigation_with_keys": True}
    if url := repository(pyproject):
        options |= {"source_repository": f"{url}/", "source_branch": "main", "source_directory": "docs/"}
        options["footer_icons"] = [
            {"name": "Repository", "url": url, "html": f"d2v {version}: repository", "class": "repository"}
        ]
    return options
