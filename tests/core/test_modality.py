"""Records of modalities: what is missing is reported in one line."""

import subprocess
import sys
from textwrap import dedent

import pytest

from d2v.core.modality import Modality, find_quickstart, modalities
from d2v.core.registry import MissingExtraError, UnknownNameError


def test_missing_extra_names_the_modules_and_the_command() -> None:
    record = Modality(name="vision", description="", extra="d2v[vision]", requires=("json", "no_such_a", "no_such_b"))
    with pytest.raises(MissingExtraError, match=r"needs no_such_a, no_such_b, .*'d2v\[vision\]'$") as caught:
        record.require_extra()
    assert caught.value.name == "no_such_a"
    assert isinstance(caught.value, ImportError)


def test_nothing_missing() -> None:
    Modality(name="plain", description="").require_extra()
    Modality(name="json", description="", extra="d2v[json]", requires=("json",)).require_extra()


def test_requires_without_extra_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'vision' .*torchvision .*extra"):
        Modality(name="vision", description="", requires=("torchvision",))


def test_the_quickstart_of_a_modality_is_found() -> None:
    ours = modalities.load("vision").quickstart
    assert ours is not None
    assert find_quickstart("vision") is ours
    assert find_quickstart() is ours
    with pytest.raises(ValueError, match="text"):
        find_quickstart("text")
    with pytest.raises(UnknownNameError, match="'visoin'"):
        find_quickstart("visoin")


def test_without_any_quickstart_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modalities, "names", lambda: ["audio", "text"])
    with pytest.raises(ValueError, match=r"no .*modality"):
        find_quickstart()


@pytest.mark.parametrize("name", ["vision", "audio", "text"])
def test_our_own_modality_without_its_extra(name: str) -> None:
    """Its package imports, and the missing extra is one line, in a process where the packages cannot be found."""
    program = f"""
        import sys
        # None there is Python's own way to say that a module cannot be imported, installed or not.
        sys.modules.update(dict.fromkeys(("torchvision", "PIL", "torchaudio", "soundfile", "tokenizers")))
        from d2v.{name} import modality
        try:
            modality.require_extra()
        except ImportError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{name} needs" in done.stdout
    assert done.stdout.rstrip().endswith(f"'d2v[{name}]'")
