"""What the site promises beyond its texts: complete tables, code that fits its column, messages that exist."""

import ast
import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from d2v.core.modality import modalities
from d2v.core.recipes import recipe_names, recipe_text

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if "_generated" not in page.parts)]
COLUMN = 100  # letters of code that a window of 1280 pixels shows
PROJECT = '[project]\nname = "d2v"\n'
URL = '[project.urls]\nRepository = "https://example.org/d2v/"\n'


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that build the site can be imported."""
    monkeypatch.syspath_prepend(DOCS / "_ext")


@pytest.fixture
def site(extension: None) -> ModuleType:
    return importlib.import_module("site_pages")


@pytest.fixture
def project(extension: None) -> ModuleType:
    return importlib.import_module("site_project")


def test_without_a_repository_nothing_names_one(project: ModuleType) -> None:
    assert project.repository(PROJECT) is None
    assert "git clone" not in project.clone_text(PROJECT)
    assert project.file_link(PROJECT, "README.md") is None
    assert project.theme_options(PROJECT, "1.2") == {"navigation_with_keys": True}


@pytest.mark.parametrize("label", ["Repository", "repository", '"Reposi-tory"'])
def test_a_repository_fills_the_frame_and_the_clone_line(project: ModuleType, label: str) -> None:
    text = PROJECT + URL.replace("Repository", label)
    assert "$ git clone https://example.org/d2v d2v && cd d2v\n" in project.clone_text(text)
    assert project.file_link(text, "a/b.py") == "https://example.org/d2v/blob/main/a/b.py"
    options = project.theme_options(text, "1.2")
    assert options["source_repository"] == "https://example.org/d2v/"
    assert options["footer_icons"][0]["url"] == "https://example.org/d2v"


def test_the_readme_has_the_clone_line_if_there_is_one(project: ModuleType) -> None:
    line = project.clone_line((ROOT / "pyproject.toml").read_text())
    readme = (ROOT / "README.md").read_text()
    assert (line in readme) if line else ("git clone" not in readme)


def test_every_public_name_is_in_the_table_of_its_page(site: ModuleType) -> None:
    pages = dict(site.pages())
    public = tomllib.loads((Path(__file__).parent / "public_names.toml").read_text())
    shown = {
        path.removeprefix("api/").removesuffix(".md"): re.findall(r"^\| {py:obj}`(\w+) <", text, re.M)
        for path, text in pages.items()
        if path.startswith("api/")
    }
    assert shown == {package: sorted(names) for package, names in public.items()}


def test_the_key_page_shows_what_recipes_set(site: ModuleType) -> None:
    keys = dict(site.pages())["keys.txt"]
    rows = dict(
        re.findall(r"^\| `(mask\.mask_prob)` \|.*\| (.*) \|$", keys.partition("inverse-blocks`\n")[2], re.M)[:1]
    )
    assert "`0.6` vision/small" in rows["mask.mask_prob"]
    finetune = keys.partition("FinetuneOptimConfig, used by `d2v finetune`")[2].partition("\n## ")[0]
    assert "vision/small-finetune" in finetune
    assert "vision/base" not in finetune


def test_every_public_name_is_described(site: ModuleType) -> None:
    empty = [
        row
        for path, text in site.pages()
        if path.startswith("api/")
        for row in re.findall(r"^\| .+ \|$", text, re.M)
        if re.search(r"\|\s*\|$|generic container|Built-in|Runtime representation", row)
    ]
    assert not empty


def test_a_type_alias_shows_its_value_and_description(site: ModuleType) -> None:
    page = dict(site.pages())["api/d2v.core.train.md"]
    shown = page.partition(".. py:data:: d2v.core.train.Schedule\n")[2].partition("```")[0]
    assert ":value: Callable[[int], float]\n\n   A function from" in shown


def test_napoleon_reads_descriptions_as_text(extension: None) -> None:
    pytest.importorskip("sphinx")
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    links = importlib.import_module("site_links")

    def shown(what: str, text: str) -> str:
        lines = text.splitlines()
        links.docstring(None, what, "d2v.x", None, None, lines)
        lines = napoleon.GoogleDocstring(lines, None, None, what, "d2v.x").lines()
        links.colons(None, what, "d2v.x", None, None, lines)
        return "\n".join(lines).strip()

    assert shown("property", "The model: a module.") == "The model: a module."
    assert ":param d: \\d." in shown("class", "A layer.\n\nArgs:\n    d: d.")


def test_signatures_and_members_have_no_internals(extension: None) -> None:
    pytest.importorskip("sphinx")
    links = importlib.import_module("site_links")
    from d2v.core.probes import Case

    assert links.signature(None, "class", "x", None, None, "(a: A = NOTHING)", None) == ("(a: A = ...)", None)
    assert links.skip(None, "class", "layers", Case.layers, False, None) is True
    assert links.skip(None, "class", "count", Case.count, False, None) is None


@pytest.mark.parametrize("name", recipe_names())
def test_the_summary_of_a_recipe_is_one_line(name: str) -> None:
    """The site and `d2v list` show the first comment line alone."""
    summary, after = recipe_text(name).splitlines()[:2]
    assert summary.startswith("# ")
    assert not after.startswith("#") or after[2].isupper()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_fits_its_column(page: Path) -> None:
    """Python and settings; what commands print is wrapped."""
    long = [
        line
        for _, block in re.findall(r"^```(python|toml|yaml)\n(.*?)^```", page.read_text(), re.M | re.S)
        for line in block.splitlines()
        if len(line) > COLUMN
    ]
    assert not long


def messages() -> set[str]:
    """The texts in the code, without what is put into them."""
    found = set()
    for path in (path for package in ROOT.glob("d2v_*") for path in package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_the_messages_of_the_faq_exist() -> None:
    quoted = re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(), re.M)
    ours = [message for message in quoted if not message.startswith("OutOfMemoryError")]
    known = messages()
    assert len(ours) > 10
    for message in ours:
        parts = [part for part in known if len(part.strip()) >= 8 and part.strip(" ;,") in message]
        assert parts or any(message in text for text in known), f"no message of d2v has {message!r}"


def test_the_support_table_is_true() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", readme.partition("## Install")[0], re.M)
    table = {row[0]: dict(zip(("vision", "audio", "text"), row[1:], strict=True)) for row in rows}
    for name in modalities.names():
        record = modalities.load(name)
        tasks = ", ".join(record.tasks) or "not yet"
        assert table["`d2v pretrain`, `probe`, `extract`"][name] == ("yes" if record.data else "not yet")
        assert table["`d2v finetune`, `evaluate`, `predict`"][name] == tasks
        assert (table["published pretrained files, 2.0 and 1.0"][name] == "yes") == bool(record.converters)
