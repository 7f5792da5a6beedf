"""A disk that is full, and folders that cannot be used: one line that says so, and nothing that was saved is lost.

A limit on the size of files simulates the full disk: writing really stops, in the middle of a file.
"""

import errno
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import At, opened, same, train

from d2v.core.train import RunFolder, RunFolderError
from d2v.core.train import run_folder as folder_module

resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path)
    return path


@contextmanager
def space(size):
    """Files cannot grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fails(path, words, **options):
    """The training ends with one line of these words; returns the checkpoints that are there, all whole."""
    with pytest.raises(RunFolderError, match=words) as caught:
        train(path, **options)
    assert "\n" not in str(caught.value)
    assert not [left for folder in (path, path / "checkpoints") for left in folder.glob(".*-*")]
    run = opened(path)
    steps = run.steps()
    run.close()
    for step in steps:
        folder = run.checkpoint(step)
        json.loads((folder / "config.json").read_text())
        load_file(folder / "model.safetensors")
        assert torch.load(folder / "training.pt", weights_only=True)["step"] == step
    return steps


@pytest.mark.long
def test_a_real_small_disk(tmp_path, whole):
    disk = tmp_path / "disk"
    disk.mkdir()
    own_mounts = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    mount = f"mount -t tmpfs -o size=2m small '{disk}'"
    try:
        subprocess.run((*own_mounts, mount), check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this system lets nobody mount a file system of his own")
    worker = Path(__file__).with_name("full_disk_worker.py")
    command = f"{mount} && exec '{sys.executable}' '{worker}' '{disk}' '{whole}'"
    path = os.pathsep.join([str(Path(__file__).parents[1].parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        (*own_mounts, command),
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    space = r"No space left on device \(\d\.\d MB are free"
    assert re.search(
        rf"checkpoint: the checkpoint of update 6 .*{disk}.*{space} of about 0\.\d MB that .*update 3 is", first
    )
    assert re.search(
        rf"metrics: metrics .*{disk}/metrics/metrics\.jsonl: {space}\); the checkpoints are intact", second
    )


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "training.pt"])
def test_in_a_checkpoint(tmp_path, whole, monkeypatch, file):
    size = (whole / "checkpoints/step-8" / file).stat().st_size - 100
    save = RunFolder.save

    def cramped(self, step, *args, **options):
        with space(size if step == 6 else resource.RLIM_INFINITY):
            save(self, step, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", cramped)
        assert fails(tmp_path, "update 6 .*File too large.*update 3 .*intact") == [3]
    train(tmp_path)
    same(tmp_path, whole)


def test_in_the_first_checkpoint(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module, "write_files", full)
    assert fails(tmp_path, "update 3 .*No space left.*no earlier") == []


def test_in_the_metrics(tmp_path, whole):
    metrics, limit = tmp_path / "metrics.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (metrics.stat().st_size + 10, limit[1]))

    try:
        assert fails(
            tmp_path, r"metrics\.jsonl: File too large.*checkpoints are intact", hooks=[At(6, fill)], checkpoint_every=5
        ) == [5]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(metrics.read_text().splitlines()[-1]) == 10  # a line that was cut off
    train(tmp_path)
    same(tmp_path, whole)


def test_in_the_final_model(tmp_path, whole, monkeypatch):
    finish = RunFolder.finish

    def cramped(self, step):
        with space(1000):
            finish(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", cramped)
        assert fails(tmp_path, "model .*File too large.*checkpoints are intact") == [6, 8]
    assert not (tmp_path / "model").exists()
    train(tmp_path)
    same(tmp_path, whole)


def test_an_old_checkpoint_that_cannot_be_removed(tmp_path, whole, monkeypatch):
    rename = folder_module.Path.rename

    def held(self, target):
        if self.name == "step-3":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module.Path, "rename", held)
        assert fails(tmp_path, "step-3 .*busy.*newer checkpoints are intact") == [3, 6, 8]
    train(tmp_path)
    same(tmp_path, whole)


@pytest.mark.parametrize("name", [".lock", ".config.yaml"])
def test_a_folder_without_the_right_to_write(tmp_path, monkeypatch, name):
    for module, function in ((os, "open"), (folder_module.Path, "open")):
        original = getattr(module, function)

        def denied(path, *args, original=original, **options):
            if f"/{name}" in str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return original(path, *args, **options)

        monkeypatch.setattr(module, function, denied)
    with pytest.raises(RunFolderError, match=r"run .*Permission denied"):
        opened(tmp_path / "run")


def test_refused_folders(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file/run .*Not a directory"):
        opened(tmp_path / "file" / "run")
    run = opened(tmp_path / "run")
    with pytest.raises(RunFolderError, match="this process"):
        opened(tmp_path / "run")
    run.close()
    with pytest.raises(RunFolderError, match=r"-seed: 0; \+seed: 1"):
        opened(tmp_path / "run", config="seed: 1\n")
    with pytest.raises(RunFolderError, match="resume=true"):
        opened(tmp_path / "run", resume=False)
