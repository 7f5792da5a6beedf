"""The registry on real dist-info folders, so that reading them is part of the test."""

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from d2v.core.modality import Modality
from d2v.core.registry import PluginError, Registry, UnknownNameError

GROUP = "d2v.test_plugins"
GOOD = """
from d2v.core.modality import Modality
modality = Modality(name={name!r}, description="made up")
"""


class Site:
    """A folder on sys.path into which distributions are written as pip would."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))
        self._monkeypatch = monkeypatch

    def distribution(self, name: str, entries: dict[str, str], *, version: str = "1.0") -> None:
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{entry} = {value}" for entry, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")

    def module(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(dedent(source))
        # Forget it afterwards: a later test may write a module of the same name.
        self._monkeypatch.delitem(sys.modules, name, raising=False)

    def plugin(self, name: str, module: str) -> None:
        self.module(module, GOOD.format(name=name))
        self.distribution(f"{module.replace('_', '-')}", {name: f"{module}:modality"})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "site", monkeypatch)


def registry() -> Registry[Modality]:
    return Registry(GROUP, kind=Modality, word="modality")


def one_line(error: BaseException) -> str:
    line = str(error)
    assert "\n" not in line
    return line


def test_names_are_sorted_and_import_nothing(site: Site) -> None:
    site.plugin("video", "plug_video")
    site.plugin("odour", "plug_odour")
    assert registry().names() == ["odour", "video"]
    assert "plug_video" not in sys.modules
    assert "plug_odour" not in sys.modules


def test_load_imports_one_plugin_once(site: Site) -> None:
    site.plugin("video", "plug_video")
    site.plugin("odour", "plug_odour")
    known = registry()
    first = known.load("video")
    assert first == Modality(name="video", description="made up")
    assert "plug_odour" not in sys.modules
    del sys.modules["plug_video"]
    assert known.load("video") is first
    assert "plug_video" not in sys.modules, "the second load must come from the cache"


def test_unknown_name_lists_the_known_and_the_nearest(site: Site) -> None:
    site.plugin("video", "plug_video")
    site.plugin("odour", "plug_odour")
    with pytest.raises(UnknownNameError) as caught:
        registry().load("vidoe")
    assert one_line(caught.value) == "unknown modality 'vidoe' (known: odour, video); did you mean 'video'?"
    with pytest.raises(UnknownNameError) as caught:
        registry().load("qqq")
    assert one_line(caught.value) == "unknown modality 'qqq' (known: odour, video)"


def test_unknown_name_where_nothing_is_installed() -> None:
    with pytest.raises(UnknownNameError, match=re.escape(f"no installed distribution declares '{GROUP}'")):
        registry().load("video")


def test_two_distributions_of_one_name(site: Site) -> None:
    site.plugin("video", "plug_video")
    site.plugin("odour", "plug_odour")
    site.distribution("another-video", {"video": "plug_video:modality"}, version="0.3")
    known = registry()
    assert known.names() == ["odour", "video"]
    with pytest.raises(PluginError) as caught:
        known.load("video")
    line = one_line(caught.value)
    assert "'video'" in line
    assert "another-video 0.3" in line
    assert "plug-video 1.0" in line
    assert known.load("odour").name == "odour"
    assert list(known.broken()) == ["video"]


def test_one_distribution_twice_on_the_path(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.plugin("video", "plug_video")
    again = Site(tmp_path / "again", monkeypatch)
    again.distribution("plug-video", {"video": "plug_video:modality"})
    assert registry().load("video").name == "video"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("def broken(:", "SyntaxError: "),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("other = 1", "AttributeError: "),
    ],
)
def test_plugin_that_fails_to_import_leaves_the_others(site: Site, source: str, reason: str) -> None:
    site.module("plug_bad", source)
    site.distribution("plug-bad", {"bad": "plug_bad:modality"}, version="2.1")
    site.plugin("video", "plug_video")
    known = registry()
    with pytest.raises(PluginError) as caught:
        known.load("bad")
    assert one_line(caught.value).startswith(f"modality 'bad' of plug-bad 2.1 cannot be imported: {reason}")
    broken = known.broken()
    assert list(broken) == ["bad"]
    assert "plug-bad 2.1" in str(broken["bad"])
    assert known.load("video").name == "video"


def test_plugin_of_the_wrong_kind(site: Site) -> None:
    site.module("plug_bad", "modality = {'name': 'bad'}")
    site.distribution("plug-bad", {"bad": "plug_bad:modality"})
    with pytest.raises(PluginError) as caught:
        registry().load("bad")
    assert one_line(caught.value) == "modality 'bad' of plug-bad 1.0 (plug_bad:modality) is a dict, not a Modality"


def test_a_plugin_that_is_mended_loads_without_a_restart(site: Site) -> None:
    site.module("plug_bad", "raise RuntimeError('not yet')")
    site.distribution("plug-bad", {"bad": "plug_bad:modality"})
    known = registry()
    with pytest.raises(PluginError, match="not yet"):
        known.load("bad")
    site.module("plug_bad", GOOD.format(name="bad") + "# longer, so that no stale bytecode is taken for it\n")
    assert known.load("bad").name == "bad"


def test_plugins_that_are_classes(site: Site) -> None:
    site.module("plug_kinds", "class Spiral: pass\nspiral = Spiral()")
    site.distribution("plug-kinds", {"spiral": "plug_kinds:Spiral", "made": "plug_kinds:spiral"})
    known = Registry(GROUP, kind=type, word="masker")
    assert known.load("spiral").__name__ == "Spiral"
    with pytest.raises(PluginError) as caught:
        known.load("made")
    assert one_line(caught.value) == "masker 'made' of plug-kinds 1.0 (plug_kinds:spiral) is a Spiral, not a class"
    with pytest.raises(UnknownNameError, match="unknown masker 'sprial'"):
        known.load("sprial")


def test_entry_points_that_cannot_be_read(site: Site) -> None:
    site.plugin("video", "plug_video")
    site.distribution("plug-bad", {})
    (site.folder / "plug_bad-1.0.dist-info" / "entry_points.txt").write_text("video = before any section\n")
    with pytest.raises(PluginError) as caught:
        registry().names()
    assert "plug_bad-1.0.dist-info" in one_line(caught.value)
