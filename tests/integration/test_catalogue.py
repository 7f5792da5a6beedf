"""The catalogue of published models: names, the command that lists them, and catalogues of third parties."""

from pathlib import Path

import attrs
import pytest
from commands import Run

from d2v.core import load
from d2v.core.files import published_models
from d2v.core.files.catalogue import published_model
from d2v.core.modality import Modality, modalities
from d2v.core.registry import PluginError, UnknownNameError

SPEECH, TEXT = "data2vec2/base_libri", "facebook/data2vec-text-base"


def test_the_catalogue_is_complete() -> None:
    known = published_models()
    for name, model in known.items():
        assert model.licence == ("CC-BY-NC" if model.modality == "vision" else "MIT"), name
        assert (model.form == "hugging-face") == name.startswith("facebook/")
        assert model.pretrained in (None, *known)
    counts = {
        owner: sum(name.startswith(f"{owner}/") for name in known) for owner in ("data2vec2", "data2vec", "facebook")
    }
    assert counts == {"data2vec2": 11, "data2vec": 14, "facebook": 13}
    assert {model.modality for model in known.values()} == {"audio", "text", "vision"}
    assert len({model.address for model in known.values()}) == len(known)


def test_an_unknown_name_has_a_hint(cache: Path, d2v: Run) -> None:
    with pytest.raises(FileNotFoundError, match="did you mean 'data2vec2/base_libri'"):
        load("data2vec2/base_librii")
    with pytest.raises(UnknownNameError, match="did you mean 'facebook/data2vec-text-base'"):
        published_model("data2vec-text-base")
    code, _, error = d2v("models", "data2vec2/nlp-base")
    assert code == 2
    assert "did you mean 'data2vec2/nlp_base'" in error


def test_the_list_and_its_filters(cache: Path, d2v: Run) -> None:
    code, shown, _ = d2v("models")
    lines = shown.splitlines()
    assert code == 0
    assert lines[0].split() == ["name", "modality", "size", "data", "fine-tuning", "licence"]
    assert len(lines) == 1 + len(published_models())
    _, shown, _ = d2v("models", "--modality", "text", "--licence", "mit")
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["data2vec2/nlp_base", "data2vec/nlp_base", TEXT]
    _, shown, _ = d2v("models", "--modality", "vision", "--fine-tuning", "none", "--size", "vit-h")
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["data2vec2/huge_imagenet"]
    assert d2v("models", "--size", "enormous")[1].splitlines() == ["name  modality  size  data  fine-tuning  licence"]
    _, shown, _ = d2v("models", SPEECH)
    assert f"{cache}/data2vec2/base_libri/base_libri.pt (not downloaded)" in shown
    assert "https://" in shown
    assert f'load("{SPEECH}")' in shown


ENTRY = '[[models]]\nname = "{name}"\nsize = "S"\ndata = "D"\nlicence = "L"\naddress = "{address}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[models]]\nname = "nose/base"\nsize = 3\n', "size"),
        (ENTRY.format(name="nose", address="https://a/b.pt"), "OWNER/NAME"),
        (ENTRY.format(name="a/../b", address="https://a/b.pt"), "OWNER/NAME"),
        (ENTRY.format(name="a/b", address="file:///a"), "http"),
        ("[[models]]\nzeal = 1\n", "zeal"),
        ("models = 3\n", "nose"),
        ("", "models"),
        ("[[", "nose"),
        (None, "nose"),
    ],
)
def test_a_third_party_catalogue_that_is_broken(
    text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third_party(text, tmp_path, monkeypatch)
    with pytest.raises(PluginError, match=message):
        published_models()


def third_party(text: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A modality with this catalogue."""
    package = f"nose_{abs(hash(text))}"
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text("")
    if text is not None:
        (folder / package / "catalogue.toml").write_text(text)
    monkeypatch.syspath_prepend(folder)
    record = Modality(name="nose", description="", catalogue=package)
    names, one = modalities.names(), modalities.load
    monkeypatch.setattr(modalities, "names", lambda: [*names, "nose"])
    monkeypatch.setattr(modalities, "load", lambda name: record if name == "nose" else one(name))


def test_a_third_party_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, d2v: Run) -> None:
    third_party(ENTRY.format(name="nose/base", address="https://a/b.pt"), tmp_path, monkeypatch)
    assert published_models()["nose/base"].modality == "nose"
    assert d2v("models", "--modality", "nose")[1].splitlines()[1:] == [
        "nose/base  nose      S     D     none         L"
    ]
    (tmp_path / "more").mkdir()
    third_party(ENTRY.format(name=SPEECH, address="https://a/b.pt"), tmp_path / "more", monkeypatch)
    with pytest.raises(PluginError, match="'data2vec2/base_libri' is listed by audio and nose"):
        published_models()


def test_a_model_as_a_value_is_checked() -> None:
    with pytest.raises(ValueError, match="OWNER/NAME"):
        attrs.evolve(published_models()[SPEECH], name="/etc/passwd")
