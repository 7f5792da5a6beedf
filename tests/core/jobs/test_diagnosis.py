"""`d2v doctor`: it reports ok if everything works, lists what is broken, and names the failed check."""

import re
import subprocess
import sys
from contextlib import nullcontext
from itertools import count

import pytest
import torch

from d2v.core import modalities
from d2v.core.cli import main
from d2v.core.jobs import DoctorError, diagnosis, doctor, environment
from d2v.core.modality import Modality
from d2v.core.registry import PluginError
from d2v.core.train.state import TrainingState

CHECKS = ["masks", "training step", "checkpoint", "resume"]


def test_it_works_here():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    printed = []
    found = doctor(tell=printed.append)
    assert found.failed == []
    assert list(found.checks)[-4:] == CHECKS
    assert found.lines() == printed
    for name in ("d2v", "Python", "platform", "torch", "threads", "CPU", "device=auto", "tensorboard"):
        assert found.facts[name]
    assert set(modalities.names()) < set(found.facts)
    assert "GiB free" in found.facts["temporary files"]
    found.require()
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers are the caller's


def test_the_command():
    done = subprocess.run([sys.executable, "-m", "d2v", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[-4:]] == ["ok"] * 4


def test_a_check_that_fails_names_itself(monkeypatch, capsys):
    def broken(device):
        raise ValueError("two\n lines")

    monkeypatch.setitem(diagnosis.CHECKS, "masks", broken)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"^masks +FAILED: ValueError: two lines$", out, re.M)
    assert re.search(r"^resume +ok$", out, re.M)
    assert err.endswith(": masks\n")
    assert err.count("\n") == 1


def test_plugins_and_extras(monkeypatch):
    def load(name):
        if name == "broken":
            raise PluginError("modality 'broken' of d2v-broken 1.0 cannot be imported: ImportError: no nose")
        requires = {"bare": (), "missing": ("nose_of_nobody",), "torn": ("torn_package",)}[name]
        return Modality(name=name, description="made up", extra=f"d2v[{name}]", requires=requires)

    monkeypatch.setattr(modalities, "names", lambda: ["bare", "broken", "missing", "torn"])
    monkeypatch.setattr(modalities, "load", load)
    monkeypatch.setattr("d2v.core.modality.find_spec", lambda name: None if name == "nose_of_nobody" else object())
    found = doctor()
    assert "'broken' of d2v-broken 1.0" in found.facts["broken"]
    assert "d2v[missing]" in found.facts["missing"]
    assert found.facts["bare"].startswith("installed")
    # What is missing is no failure; what is there and cannot be imported is.
    assert found.failed == ["torn packages"]
    with pytest.raises(DoctorError, match=rf"1 of {len(found.checks)} .*torn packages"):
        found.require()


def test_packages_of_some_features_are_told_with_their_command(monkeypatch):
    optional = {"d2v[bread]": ("numpy", "crust_of_nobody"), "d2v[water]": ("torch",)}
    record = Modality(name="taste", description="made up", optional=optional)
    monkeypatch.setattr(modalities, "names", lambda: ["taste"])
    monkeypatch.setattr(modalities, "load", lambda name: record)
    found = dict(environment.environment_report("0"))["taste"]
    assert re.search(r"numpy \d.*without crust_of_nobody.*d2v\[bread\].*torch \d", found)
    assert "d2v[water]" not in found


def forgetful(self, run, *, accept_data):
    """Go on with the number of updates and nothing else."""
    self.step = max(run.steps(), default=0)


@pytest.mark.parametrize("name", CHECKS)
def test_checks_see_what_is_wrong(name, monkeypatch):
    if name == "masks":
        seeds, draw = count(), diagnosis.Draw
        monkeypatch.setattr(diagnosis, "Draw", lambda **options: draw(**{**options, "seed": next(seeds)}))
    elif name == "training step":
        monkeypatch.setattr(diagnosis.Data2Vec, "update_teacher", lambda self, n: None)
    elif name == "checkpoint":
        other = {name: 2 * tensor + 1 for name, tensor in diagnosis.tiny_model().state_dict().items()}
        monkeypatch.setattr(diagnosis.RunFolder, "load", lambda self: (other, {}))
    else:
        monkeypatch.setattr(TrainingState, "restore", forgetful)
    with pytest.raises(DoctorError):
        diagnosis.CHECKS[name](torch.device("cpu"))


def test_no_room_for_temporary_files(monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(environment.tempfile, "gettempdir", none)
    assert "TMPDIR" in dict(environment.environment_report("0"))["temporary files"]


def test_accelerators(monkeypatch):
    def memory(index):
        if index:
            raise RuntimeError("CUDA error: busy\nmore of it")
        return 2**30, 2**31

    cuda = {"device_count": lambda: 2, "get_device_name": lambda index: "made up", "mem_get_info": memory}
    cuda |= {
        "is_available": lambda: True,
        "device": lambda index: nullcontext(),
        "is_bf16_supported": lambda **options: True,
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    found = dict(environment.environment_report("0"))
    assert found["cuda:0"] == "made up, 2.0 GiB, 1.0 free, bf16 yes"
    assert found["cuda:1"] == "cannot be used: CUDA error: busy"
    assert found["device=auto"] == "cuda"
