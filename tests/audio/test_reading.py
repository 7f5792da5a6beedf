"""One recording: formats, conversions that are asked for, and files that lie, end early or hold no sound."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recordings import LIBRIVOX, noise_wave, save
from torchaudio.functional import resample

from d2v.audio.recordings.endings import RECORDINGS, is_recording
from d2v.audio.recordings.reading import Reader, entry_of
from d2v.core.data import BrokenSampleError

PLAIN = Reader(normalize=False)


def refusal(path: Path | str, reader: Reader = PLAIN) -> str:
    with pytest.raises(BrokenSampleError) as caught:
        reader.read(path)
    assert caught.value.name == str(path)
    return caught.value.reason


def with_size(path: Path, marker: bytes, size: int, *, at: int = 4) -> Path:
    """The file with another number after a marker in its header."""
    content = bytearray(path.read_bytes())
    place = content.find(marker) + at
    content[place : place + 4] = struct.pack("<I", size)
    changed = path.with_name(f"changed-{path.name}")
    changed.write_bytes(content)
    return changed


@pytest.mark.parametrize("ending", ["wav", "flac", "aiff", "caf", "au", "w64", "ogg", "mp3", "opus"])
def test_formats(tmp_path: Path, ending: str) -> None:
    options = {"format": "OGG", "subtype": "OPUS"} if ending == "opus" else {}
    path = save(tmp_path / f"a.{ending}", 16000, **options)
    found = PLAIN.read(path)
    assert found.dtype == torch.float32
    assert found.shape == (16000,)
    assert PLAIN.length(str(path)) == 16000
    if ending not in ("ogg", "mp3", "opus"):
        torch.testing.assert_close(found, torch.from_numpy(noise_wave(16000)), atol=2**-15, rtol=0)
    assert RECORDINGS.knows(path.name)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_sample_formats(tmp_path: Path, subtype: str) -> None:
    found = PLAIN.read(save(tmp_path / "a.wav", subtype=subtype))
    torch.testing.assert_close(found, torch.from_numpy(noise_wave(800)), atol=0.01, rtol=0)


def test_content_counts_where_the_name_says_nothing(tmp_path: Path) -> None:
    for ending in ("wav", "flac", "aiff", "ogg", "caf", "w64"):
        path = save(tmp_path / f"a.{ending}")
        path.rename(tmp_path / f"recording-{ending}")
        assert is_recording(str(tmp_path / f"recording-{ending}")), ending
    (tmp_path / "text").write_text("RIFFle through the pages")
    assert not is_recording(str(tmp_path / "text"))


def test_real_speech_is_normalised_over_its_whole_length() -> None:
    path = sorted(LIBRIVOX.glob("*.flac"))[1]
    raw, rate = soundfile.read(path, dtype="float64")
    assert rate == 16000
    expected = torch.from_numpy((raw - raw.mean()) / np.sqrt(raw.var() + 1e-5))
    torch.testing.assert_close(Reader().read(path).double(), expected, atol=1e-5, rtol=1e-5)


def test_other_rates_and_channels_are_converted_on_request_only(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", 1600, rate=8000, channels=2)
    assert "data.mixdown" in refusal(path)
    assert "data.resample" in refusal(path, Reader(mixdown=True))
    both = Reader(mixdown=True, resample=True, normalize=False)
    mono = torch.from_numpy(soundfile.read(path, dtype="float32")[0]).mean(1)
    torch.testing.assert_close(both.read(path), resample(mono, 8000, 16000))
    assert both.length(str(path)) == 3200 == len(both.read(path))
    assert Reader(sample_rate=8000, mixdown=True).read(path).shape == (1600,)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_lengths_after_resampling(tmp_path: Path, rate: int) -> None:
    reader = Reader(resample=True)
    for length in (3000, 3001, 3007):
        path = save(tmp_path / "a.wav", length, rate=rate)
        assert reader.length(str(path)) == len(reader.read(path))


def test_silence_and_clipping_are_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(800), 16000)
    assert torch.equal(Reader().read(tmp_path / "silent.wav"), torch.zeros(800))
    soundfile.write(tmp_path / "clipped.wav", np.clip(10 * noise_wave(800), -1, 1), 16000)
    assert Reader().read(tmp_path / "clipped.wav").isfinite().all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("reader", [Reader(), PLAIN], ids=["normalised", "raw"])
def test_numbers_that_are_none(tmp_path: Path, value: float, reader: Reader) -> None:
    samples = noise_wave(800)
    samples[17] = value
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert "NaN" in refusal(tmp_path / "a.wav", reader)


def test_too_short(tmp_path: Path) -> None:
    assert PLAIN.read(save(tmp_path / "a.wav", 400)).shape == (400,)
    assert "399 samples" in refusal(save(tmp_path / "a.wav", 399))
    assert "0 samples" in refusal(save(tmp_path / "a.wav", 0))


def test_headers_that_lie(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", 16000)
    assert "announces 99999 bytes" in refusal(with_size(path, b"data", 99_999))
    assert "describes only" in refusal(with_size(path, b"data", 16_000)), "half of the samples would be lost"
    stream = with_size(with_size(path, b"data", 0xFFFFFFFF), b"RIFF", 0xFFFFFFFF)
    assert PLAIN.read(stream).shape == (16000,), "written by a program that did not know the length"


@pytest.mark.parametrize("ending", ["wav", "flac", "aiff", "w64", "mp3", "ogg", "caf"])
def test_truncated_files(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path)


def test_files_without_a_recording(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert "empty" in refusal(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("no sound" * 100)
    assert refusal(tmp_path / "text.wav")
    assert "folder" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "missing.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "pipe" in refusal(tmp_path / "pipe.wav"), "opening it would wait for a writer"
    assert PLAIN.length(str(tmp_path / "text.wav")) == -1


def test_members_of_archives(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.flac", 800 + i, seed=i) for i in range(3)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.write(path, path.name)
    content = (tmp_path / "all.zip").read_bytes()
    for path in paths:
        entry = f"{tmp_path}/all.zip:{content.find(path.read_bytes())}:{path.stat().st_size}"
        assert torch.equal(PLAIN.read(entry), PLAIN.read(path))
        assert PLAIN.length(entry) == PLAIN.length(str(path))
    assert "ends before byte" in refusal(f"{tmp_path}/all.zip:10:{10**6}")
    assert refusal(f"{tmp_path}/all.zip:1:500")
    assert entry_of("a:17:40") is None


def test_names_of_any_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    os.rename(save(tmp_path / "a.wav"), path)  # noqa: PTH104 - a Path cannot be made of these bytes
    assert PLAIN.read(os.fsdecode(path)).shape == (800,)
