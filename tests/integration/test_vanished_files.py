"""Files that vanish or are cut off while a run reads them.

A sample that cannot be read is replaced, counted and listed. If nothing can be read, the run ends with an error that
names a file; when the files are back, it goes on exactly.
"""

import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import attrs
import numpy as np
import pytest
import recordings
from building import with_student
from PIL import Image
from token_files import writing_tokens
from training import NOISY, At, same, train

from d2v.core import InverseBlockMasker
from d2v.core.data import DataConfig, DataError
from d2v.core.model import ConvDecoderConfig
from d2v.text import TextDataConfig
from d2v.vision import ImageAdapterConfig, ImageDataConfig

SAMPLES = 12


def images(folder: Path) -> DataConfig:
    folder.mkdir()
    for number in range(SAMPLES):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ImageDataConfig(path=str(folder), size=8, channels=1, num_workers=0, hold_out=0.0)


def sounds(folder: Path) -> DataConfig:
    for number in range(SAMPLES):
        recordings.save(folder / f"{number}.wav", seed=number)
    return recordings.config(folder)


def tokens(folder: Path) -> DataConfig:
    folder.mkdir()
    with writing_tokens(folder / "train", 100) as writer:
        for number in range(SAMPLES):
            writer.add(np.full(11, 4 + number), np.array([11]))
    return TextDataConfig(path=str(folder), block_size=12, num_workers=0)


def hide(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def restore(folder: Path) -> None:
    folder.with_name("elsewhere").rename(folder)


def cut_off(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix != ".idx":
            path.with_name(f"{path.name}.whole").write_bytes(path.read_bytes())
            with path.open("r+b") as file:
                file.truncate(20)


def put_back(folder: Path) -> None:
    for path in folder.glob("*.whole"):
        path.with_suffix("").write_bytes(path.read_bytes())
        path.unlink()


@pytest.mark.parametrize(
    ("make", "break_all", "mend", "words"),
    [
        pytest.param(images, hide, restore, r"\.png.*No such file", id="images vanish"),
        pytest.param(images, cut_off, put_back, r"\.png.*", id="images are cut off"),
        pytest.param(sounds, hide, restore, r"\.wav.*No such file", id="recordings vanish"),
        pytest.param(sounds, cut_off, put_back, r"\.wav.*", id="recordings are cut off"),
        pytest.param(tokens, cut_off, put_back, r"train\.bin.*cut off", id="token files are cut off"),
    ],
)
def test_all_files(
    tmp_path: Path,
    make: Callable[[Path], DataConfig],
    break_all: Callable[[Path], None],
    mend: Callable[[Path], None],
    words: str,
) -> None:
    config = make(tmp_path / "data")
    whole = [batch.ids for batch in islice(config.build("train", batch_size=3, training=True), 6)]
    loader = config.build("train", batch_size=3, training=True)
    batches = iter(loader)
    read = [next(batches).ids for _ in range(2)]
    break_all(tmp_path / "data")
    with pytest.raises(DataError, match=words):
        list(islice(batches, 4))
    place = loader.state_dict()
    mend(tmp_path / "data")
    again = config.build("train", batch_size=3, training=True)
    again.load_state_dict(place)
    read += [batch.ids for batch in islice(again, 4)]
    assert all(one is not None and other is not None for one, other in zip(read, whole, strict=True))
    assert [ids.tolist() for ids in read if ids is not None] == [ids.tolist() for ids in whole if ids is not None]


@pytest.mark.parametrize("make", [images, sounds])
def test_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], DataConfig]) -> None:
    loader = make(tmp_path / "data").build("train", batch_size=3, training=True)
    gone = next((tmp_path / "data").glob("7.*"))
    gone.unlink()
    batches = iter(loader)
    read = [next(batches) for _ in range(4)]
    assert all(batch.size == 3 for batch in read)
    assert list(loader.broken) == [str(gone)]
    with caplog.at_level(logging.WARNING):
        batches.close()  # type: ignore[attr-defined]  # a generator
    assert "1 of 12 samples" in caplog.text
    assert str(gone) in caplog.text


def test_a_token_file_that_was_removed_is_read_to_the_end(tmp_path: Path) -> None:
    config = tokens(tmp_path / "data")
    loader = config.build("train", batch_size=3, training=True)
    hide(tmp_path / "data")
    assert all(batch.size == 3 for batch in islice(loader, 8))
    assert not loader.broken
    with pytest.raises(DataError, match="data"):
        attrs.evolve(config).build("train", batch_size=3, training=True)


def test_a_run_goes_on_when_the_files_are_back(tmp_path: Path) -> None:
    def run(name: str, *hooks: object) -> None:
        data = config.build("train", batch_size=3, training=True)
        train(tmp_path / name, config=model, data=data, hooks=hooks, log_every=2)

    config = images(tmp_path / "data")
    model = attrs.evolve(
        with_student(NOISY, adapters={"vision": ImageAdapterConfig(image_size=8, patch_size=2, channels=1)}),
        predictors={"vision": ConvDecoderConfig(decoder_dim=16, num_layers=1, kernel_size=3, groups=4)},
        maskers={"vision": InverseBlockMasker(mask_prob=0.6, mask_length=2)},
    )
    run("whole")
    with pytest.raises(DataError, match=r"\.png.*No such file"):
        run("run", At(5, lambda: hide(tmp_path / "data")))
    with pytest.raises(DataError, match="data"):
        run("run")
    restore(tmp_path / "data")
    run("run")
    same(tmp_path / "run", tmp_path / "whole")
