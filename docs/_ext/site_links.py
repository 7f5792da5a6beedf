"""Convert the docstrings of this library to reStructuredText, and link the names of public pieces."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from docutils import nodes  # type: ignore[import-untyped]  # docutils has stubs only in a separate package
from pygments.lexers.shell import BashSessionLexer  # type: ignore[import-untyped]  # no types-Pygments, as for docutils
from site_api import homes, short_names
from site_project import PYPROJECT, file_link
from sphinx import addnodes

_CODE = re.compile(r"(`+[^`]*`+)")
_SPECIAL = re.compile(r"([\\*|]|_(?=\W|$))")
_NAME = re.compile(r"([\w.]+)(?:\(\))?")
_LETTER = re.compile(r"^(\s*\w+: )(\w\.)$")  # a description of one letter, which would start a numbered list
_COLON = "\ufff9"  # stands for a colon while Napoleon runs


def as_rst(lines: list[str]) -> list[str]:
    """Convert a docstring to reStructuredText in Google style.

    Backticks enclose code, as in Markdown; all other characters are literal. Examples are not changed.
    """
    out: list[str] = []
    example = False
    returns: int | None = None
    for line in lines:
        bare = line.strip()
        example = bare.startswith(">>>") or (example and bare != "")
        if example:
            out.append(line)
            continue
        indent = len(line) - len(line.lstrip())
        if bare == "Returns:":
            # Napoleon would parse the words before a colon as a type.
            returns = indent
            out.append(f"{' ' * indent}:returns:")
            continue
        if returns is not None and bare and indent <= returns:
            returns = None
            out.append("")
        out.append(_LETTER.sub(r"\1\\\2", "".join(_plain(part) for part in _CODE.split(line))))
    return out


def _plain(part: str) -> str:
    if part.startswith("`"):
        return f"``{part.strip('`')}``"
    return _SPECIAL.sub(r"\\\1", part)


def docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert docstrings; a handler of autodoc's event that runs before Napoleon's."""
    lines[:] = as_rst(lines)
    if what in ("property", "attribute") and lines:
        # Napoleon would parse the words before a colon as a type.
        lines[0] = lines[0].replace(":", _COLON)


def colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put back the colons that were hidden from Napoleon."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show defaults that attrs makes by a factory as dots, as stubs do, not as its marker."""
    return signature and re.sub(r"= NOTHING\b", "= ...", signature), returns


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple; their own docstrings only number them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def link_names(app: Any, doctree: nodes.document) -> None:
    """Link code in running text that is the name of a public piece to its page."""
    for literal in list(doctree.findall(nodes.literal)):
        match = _NAME.fullmatch(literal.astext())
        # Lower-case words without dots are often commands or values, not functions.
        plain = match and match[1].islower() and "." not in match[1]
        home = match and not plain and (short_names().get(match[1]) or homes().get(match[1]))
        if not home or _inside(literal, nodes.reference, nodes.title, addnodes.pending_xref, addnodes.desc_signature):
            continue
        link = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=home, refdoc=app.env.docname, refexplicit=True
        )
        literal.replace_self(link)
        link += literal


def _inside(node: nodes.Node, *kinds: type) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def resolve(app: Any, env: Any, node: Any, content: nodes.Node) -> nodes.Node | None:
    """Resolve other names of a public piece to its page; types without a page stay plain text."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    home = homes().get(target) or short_names().get(target)
    if home and home != target:
        found: nodes.Node | None = env.get_domain("py").resolve_xref(
            env, node["refdoc"], app.builder, "obj", home, node, content
        )
        return found
    return None if home or _is_a_mistake(target) else content


def _is_a_mistake(target: str) -> bool:
    """Whether a dotted name in `d2v` does not exist; names that exist but are not public need no page."""
    module, _, name = target.rpartition(".")
    if not module.startswith("d2v."):
        return False
    try:
        return not hasattr(import_module(module), name)
    except ImportError:
        return True


def repo_file(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """The role `repo`: a path in the repository, as a link if pyproject.toml has the repository's URL."""
    code = nodes.literal(text, text)
    url = file_link(PYPROJECT.read_text(), text)
    return [nodes.reference("", "", code, refuri=url) if url else code], []


class Console(BashSessionLexer):  # type: ignore[misc]  # an untyped base
    """Commands with their output; only `$ ` is a prompt, since `#` starts a progress line."""

    _ps1rgx = re.compile(r"^(\$ )(.*\n?)")


def setup(app: Any) -> dict[str, Any]:
    """Connect the handlers."""
    app.add_role("repo", repo_file)
    app.add_lexer("console", Console)
    connect: Callable[..., int] = app.connect
    connect("autodoc-process-docstring", docstring, priority=400)
    connect("autodoc-process-docstring", colons, priority=600)
    connect("autodoc-process-signature", signature)
    connect("autodoc-skip-member", skip)
    connect("doctree-read", link_names)
    connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
