"""Generate parts of the site from the code: help texts, recipes, keys, API pages and figures.

They are written to `docs/_generated`, which git ignores, and included in the hand-written pages. Only `setup` needs
Sphinx.
"""

import contextlib
import html
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from site_api import api_pages, homes, packages_text, public_packages
from site_keys import keys_text
from site_project import PYPROJECT, clone_text

from d2v.core.cli import main
from d2v.core.cli.entry import COMMANDS
from d2v.core.files.atomic import write_text
from d2v.core.modality import modalities
from d2v.core.recipes import recipe_names, recipe_text

__all__ = ["help_section", "homes", "pages", "printed", "public_packages", "setup", "write"]

_HELP_OF = {"commands/" + command.name: command.name for command in COMMANDS}


def printed(*words: str) -> str:
    """Output of `d2v WORDS`, at a width that fits a page."""
    text = io.StringIO()
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            if main(words) != 0:
                raise RuntimeError(f"d2v {' '.join(words)} failed while the site was built")
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return text.getvalue()


def help_section(command: str) -> str:
    """Last section of a command's page: its `--help`, and that of its subcommands."""
    calls: list[tuple[str, ...]] = [(command,)]
    if command == "data":
        calls += [("data", verb) for name in modalities.names() for verb in modalities.load(name).data_commands]
    texts = [f"```text\n$ d2v {' '.join(call)} --help\n{printed(*call, '--help')}```\n" for call in calls]
    return "\n\n## Output of `--help`\n\n" + "\n".join(texts)


def recipes_text() -> str:
    """Every recipe: its summary, and all its keys."""
    parts = []
    for name in recipe_names():
        summary = recipe_text(name).splitlines()[0].removeprefix("#").strip()
        parts.append(
            f"## {name}\n\n{summary}.\n\n"
            f"<details><summary>{html.escape(f'd2v recipe {name}')}</summary>\n\n"
            f"```yaml\n{printed('recipe', name)}```\n\n</details>\n"
        )
    return "\n".join(parts)


def pages() -> Iterator[tuple[str, str]]:
    """Paths below `_generated`, with the text of each file."""
    yield "recipes.txt", recipes_text()
    yield "keys.txt", keys_text()
    yield "list.txt", printed("list")
    yield "packages.txt", packages_text()
    yield "clone.txt", clone_text(PYPROJECT.read_text())
    yield from api_pages()


def write(folder: Path, items: Iterator[tuple[str, str]]) -> None:
    """Write only files that changed, so that Sphinx reads only these again, and remove files that are obsolete."""
    kept = set()
    for path, text in items:
        target = folder / path
        kept.add(target)
        if not target.exists() or target.read_text() != text:
            write_text(target, text)
    for old in [path for path in folder.rglob("*.*") if path.is_file() and path not in kept]:
        old.unlink()


def setup(app: Any) -> dict[str, Any]:
    """Write the pages before Sphinx looks for sources, and append `--help` to the commands' pages."""
    from site_figures import figures

    def before(app: Any) -> None:
        folder = Path(app.srcdir) / "_generated"
        write(folder, (item for source in (pages, figures) for item in source()))

    def reading(app: Any, docname: str, source: list[str]) -> None:
        if docname in _HELP_OF:
            source[0] = source[0].rstrip() + help_section(_HELP_OF[docname])

    def outdated(app: Any, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
        # The output of `--help` changes with the code; Sphinx checks only the dates of pages.
        return [page for page in _HELP_OF if page in env.found_docs]

    app.connect("builder-inited", before)
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", reading)
    return {"parallel_read_safe": True}
