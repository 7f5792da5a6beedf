"""Published models by name are downloaded: small files of the same layout from this machine, at the first use."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from threading import Thread

import attrs
import pytest
import torch
from commands import Run
from safetensors.torch import load_file
from serving import Served, serving

from d2v.core import Batch, load
from d2v.core.files import PublishedModel, model_cache, open_model, published_models
from d2v.core.files.downloads import DownloadError

DATA = Path(__file__).parents[1] / "parity/data"
FILES = DATA / "checkpoints"
SPEECH, CLASSIFIER, TEXT = "data2vec2/base_libri", "data2vec2/base_imagenet_ft", "facebook/data2vec-text-base"
PATHS = {
    SPEECH: "/base_libri.pt",
    CLASSIFIER: "/base_imagenet_ft.pt",
    "data2vec2/base_imagenet": "/base_imagenet.pt",
    TEXT: "/text/resolve/main",
}


def moved(models: Mapping[str, PublishedModel], address: str) -> dict[str, PublishedModel]:
    """The catalogue with models on this machine."""
    return {name: attrs.evolve(models[name], address=f"{address}{path}") for name, path in PATHS.items()}


@pytest.fixture
def served(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The files of some models, where the catalogue says that they are."""
    files = {
        PATHS[SPEECH]: (FILES / "audio_pretrain.pt").read_bytes(),
        f"{PATHS[TEXT]}/config.json": (DATA / "hf/text_model/config.json").read_bytes(),
        f"{PATHS[TEXT]}/model.safetensors": (DATA / "hf/text_model/model.safetensors").read_bytes(),
    }
    with serving(Served(files, tagged=True)) as one:
        models = moved(published_models(), one.address)
        monkeypatch.setattr(model_cache, "published_models", lambda: models)
        yield one


def waveform() -> Batch:
    return Batch(source=torch.randn(1, 4000))


def test_a_model_is_downloaded_once_and_then_read(
    served: Served, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features = load(SPEECH).features(waveform()).x
    assert features.isfinite().all()
    assert "licence of the weights: MIT" in caplog.text
    place = cache / "data2vec2/base_libri/base_libri.pt"
    assert place.read_bytes() == served.files[PATHS[SPEECH]]
    caplog.clear()
    assert open_model(SPEECH).path == place
    assert len(served.asked) == 1
    assert not caplog.text


def test_files_of_hugging_face_are_those_that_loading_needs(served: Served, cache: Path) -> None:
    served.files[f"{PATHS[TEXT]}/other/model.safetensors"] = served.files.pop(f"{PATHS[TEXT]}/model.safetensors")
    served.moved[f"{PATHS[TEXT]}/model.safetensors"] = f"{PATHS[TEXT]}/other/model.safetensors"
    model = load(TEXT)
    assert model.features(Batch(source=torch.tensor([[0, 5, 7, 2]]))).x.isfinite().all()
    kept = {path.name for path in (cache / TEXT).iterdir()}
    assert kept == {"config.json", "model.safetensors", ".lock"}
    asked = {path.rpartition("/")[2] for path, _ in served.asked}
    assert asked == {"config.json", "preprocessor_config.json", "vocab.json", "merges.txt", "model.safetensors"}


def test_older_weights_of_hugging_face(served: Served, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.files.pop(f"{PATHS[TEXT]}/model.safetensors")
    with pytest.raises(DownloadError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load(TEXT)
    weights = load(DATA / "hf/text_model").module.state_dict()
    torch.save(load_file(DATA / "hf/text_model/model.safetensors"), cache / "weights.bin")
    served.files[f"{PATHS[TEXT]}/pytorch_model.bin"] = (cache / "weights.bin").read_bytes()
    monkeypatch.setenv("D2V_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"the files below http.*main at .*data2vec-text-base"):
        load(TEXT)
    monkeypatch.setenv("D2V_OFFLINE", "0")
    again = load(TEXT).module.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


def test_an_interrupted_download_is_continued(served: Served, cache: Path) -> None:
    served.lost_after = 1000
    with pytest.raises(DownloadError, match="1000 of"):
        load(SPEECH)
    served.lost_after = None
    load(SPEECH)
    assert served.asked == [(PATHS[SPEECH], None), (PATHS[SPEECH], "bytes=1000-")]
    assert sorted(path.name for path in (cache / "data2vec2/base_libri").iterdir()) == [".lock", "base_libri.pt"]


@pytest.mark.parametrize("tagged", [True, False])
def test_a_part_of_another_file_is_not_continued(served: Served, tagged: bool) -> None:
    """Without digests, a file of two halves could be told from a whole one by nothing."""
    served.tagged, served.lost_after = tagged, 1000
    whole = served.files[PATHS[SPEECH]]
    served.files[PATHS[SPEECH]] = bytes(len(whole))
    with pytest.raises(DownloadError, match="1000 of"):
        load(SPEECH)
    served.lost_after, served.files[PATHS[SPEECH]] = None, whole
    load(SPEECH)


def test_offline_only_the_cache_is_used(served: Served, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2V_OFFLINE", "1")
    place = cache / "data2vec2/base_libri/base_libri.pt"
    with pytest.raises(DownloadError, match="D2V_OFFLINE") as caught:
        load(SPEECH)
    assert f"{served.address}{PATHS[SPEECH]} at {place}" in str(caught.value)
    place.parent.mkdir(parents=True)
    shutil.copy(FILES / "audio_pretrain.pt", place)  # as the message says
    load(SPEECH)
    assert not served.asked
    assert "base_libri.pt" in json.loads((cache / "data2vec2/base_libri.json").read_text())


def test_a_changed_file_is_named(served: Served, cache: Path) -> None:
    load(SPEECH)
    place, record = cache / "data2vec2/base_libri/base_libri.pt", cache / "data2vec2/base_libri.json"
    place.touch()
    load(SPEECH)  # another time, the same content
    content = place.read_bytes()
    place.write_bytes(content + b"more")
    with pytest.raises(DownloadError, match=r"base_libri\.pt has changed.*delete .*base_libri\.json"):
        load(SPEECH)
    place.unlink()
    served.files[PATHS[SPEECH]] += b"more"
    with pytest.raises(DownloadError, match=rf"{PATHS[SPEECH]} has the sha256 digest.*{record}"):
        load(SPEECH)
    assert not place.exists()
    served.files[PATHS[SPEECH]] = content
    load(SPEECH)
    place.unlink()
    record.unlink()
    served.files[PATHS[SPEECH]] = (FILES / "audio_v1_pretrained.pt").read_bytes()
    load(SPEECH)  # accepted, since nothing is recorded
    record.write_text("[]")
    with pytest.raises(DownloadError, match=r"base_libri\.json is broken"):
        load(SPEECH)


def test_a_server_that_refuses_or_is_not_there(served: Served, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.files.clear()
    place = cache / "data2vec2/base_libri/base_libri.pt"
    with pytest.raises(DownloadError, match=f"{PATHS[SPEECH]}: .* 404 .*{place}"):
        load(SPEECH)
    nowhere = served.address.rpartition(":")[0] + ":9"
    models = moved(published_models(), nowhere)
    monkeypatch.setattr(model_cache, "published_models", lambda: models)
    for name in (SPEECH, TEXT):
        with pytest.raises(DownloadError, match=f"{nowhere}{PATHS[name]}.* cannot be reached: .*yourself"):
            load(name)


def test_a_path_comes_before_a_name(served: Served, tmp_path: Path) -> None:
    shutil.copytree(DATA / "hf/text_model", tmp_path / SPEECH)
    assert load(SPEECH).description.modality == "text"
    assert not served.asked


def test_the_pretrained_file_is_downloaded_where_it_is_needed(served: Served, cache: Path, tmp_path: Path) -> None:
    classifier, pretrained = PATHS[CLASSIFIER], PATHS["data2vec2/base_imagenet"]
    served.files[pretrained] = (FILES / "image_pretrain.pt").read_bytes()
    served.files[classifier] = (FILES / "image_cls.pt").read_bytes()
    labels = load(CLASSIFIER).description.labels
    assert labels is not None
    assert [path for path, _ in served.asked] == [classifier]
    whole = torch.load(FILES / "image_cls.pt", weights_only=True)
    whole["cfg"]["model"]["pretrained_model_args"] = None
    torch.save({name: whole[name] for name in ("args", "cfg", "model")}, tmp_path / "file.pt")
    shutil.rmtree(cache / CLASSIFIER)
    (cache / f"{CLASSIFIER}.json").unlink()
    served.files[classifier] = (tmp_path / "file.pt").read_bytes()
    assert load(CLASSIFIER).description.labels == labels
    assert [path for path, _ in served.asked] == [classifier, classifier, pretrained]
    assert load(tmp_path / "file.pt", pretrained="data2vec2/base_imagenet").description.labels == labels


def test_commands_take_names(served: Served, tmp_path: Path, d2v: Run) -> None:
    code, shown, error = d2v("convert", SPEECH, tmp_path / "model")
    assert code == 0, error
    assert "pretrained model of audio" in shown
    assert "licence" in error
    served.files.clear()
    shutil.rmtree(tmp_path / "cache")
    code, _, error = d2v("extract", f"model={SPEECH}", "data.path=x", "out=features.npy")
    assert code == 1
    assert "404" in error


HOLDER = """
    import fcntl, sys
    with open(sys.argv[1], "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()
"""


def test_a_download_of_another_process_is_waited_for(
    served: Served, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other process has the lock, and puts the file there before it lets go."""
    folder = cache / SPEECH
    folder.mkdir(parents=True)
    program = [sys.executable, "-c", dedent(HOLDER), str(folder / ".lock")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        found: list[Path] = []
        thread = Thread(target=lambda: found.append(model_cache.located(SPEECH)))
        thread.start()
        while "waiting" not in caplog.text:
            time.sleep(0.01)
        assert not found
        shutil.copy(FILES / "audio_pretrain.pt", folder / "base_libri.pt")
        other.stdin.close()
        thread.join()
    assert found == [folder / "base_libri.pt"]
    assert not served.asked


def test_several_threads_download_a_model_once(served: Served) -> None:
    found: list[Path] = []
    threads = [Thread(target=lambda: found.append(model_cache.located(SPEECH))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(served.asked) == 1
