"""Files that would do harm if they were unpickled: nothing is run, imported, written or asked for.

All are read in a separate process, where Python's audit hooks record what happens.
"""

import json
import pickle
import subprocess
import sys
import time
import zipfile
from textwrap import dedent

import pytest
from torch_made import holding, storage, tensor, write_archive

from d2v.core.foreign import ForeignFileError, read_file

TRAP = b"trap"  # a file that would appear in the working directory


class _Reduced:
    """Pickled as a call of the caller's choice."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


def many(instruction: bytes, count: int) -> bytes:
    return instruction * count


HARMFUL = {
    "call of os.system": b"cos\nsystem\n(Vtouch trap\ntR",
    "call of posix.system": b"cposix\nsystem\n(Vtouch trap\ntR",
    "call of eval": b"c__builtin__\neval\n(Vopen('trap', 'w')\ntR",
    "call of exec": b"cbuiltins\nexec\n(Vopen('trap', 'w')\ntR",
    "call of open": b"cio\nopen\n(Vtrap\nVw\ntR",
    "call of import": b"cbuiltins\n__import__\n(Vantigravity\ntR",
    "call of a process": b"csubprocess\nPopen\n((lVtouch\naVtrap\natR",
    "call of a socket": b"csocket\ncreate_connection\n((V127.0.0.1\nI9\nttR",
    "call of runpy": b"crunpy\n_run_code\n(Vopen('trap', 'w')\n(dtR",
    "call through INST": b"(Vtouch trap\nios\nsystem\n",
    "call through OBJ": b"(cos\nsystem\nVtouch trap\no",
    "call through NEWOBJ": b"cos\nsystem\nVtouch trap\n\x85\x81",
    "call through NEWOBJ_EX": b"cos\nsystem\nVtouch trap\n\x85}\x92",
    "call through copyreg": b"ccopyreg\n__newobj__\n(cos\nsystem\nVtouch trap\ntR",
    "call through partial": b"cfunctools\npartial\n(cos\nsystem\nVtouch trap\ntR(tR",
    "call of an attribute": b"cbuiltins\ngetattr\n(cos\nsystem\nVx\ntR(Vtouch trap\ntR",
    "call of a made name": b"Vos\nVsystem\n\x93(Vtouch trap\ntR",
    "name that is no text": b"]]\x93(tR",
    "extension registry": b"\x82\x01",
    "numbers next to the pickle": b"\x97",
    "protocol of tomorrow": b"\x80\x09N",
    "giant text": b"\x8d\xff\xff\xff\xff\xff\xff\x00\x00x",
    "giant array": b"\x96\xff\xff\xff\xff\xff\x00\x00\x00x",
    "giant number": b"\x8b\x00\x00\x10\x00" + b"\x01" * (1 << 20),
    "giant bytes": b"cbuiltins\nbytearray\n(I1000000000000\ntR",
    "giant range": b"cbuiltins\nlist\n(cbuiltins\nrange\n(I1000000000000\ntRtR",
    "deep lists": many(b"]", 100_000) + many(b"a", 99_999),
    "deep tuples": b"N" + many(b"\x85", 100_000),
    "deep calls": b"ca\nb\n" + many(b")R", 3) + b"N",
    "list in itself": b"]q\x00h\x00a",
    "mapping in itself": b"}q\x00Va\nh\x00s",
    "laughs": b"]q\x00"
    + b"".join(b"](" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(40)),
    "copies of copies": b"](" + b"N" * 100_000 + b"eq\x000(" + b"cbuiltins\ntuple\nh\x00\x85R" * 3000 + b"l",
    "key that is a list": b"}]Ns",
    "key whose hash never ends": b"Nq\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}h\x00Ns",
    "set of lists": b"\x8f(]\x90",
    "call of a list": b"](tR",
    "arguments that are none": b"ca\nb\n]R",
    "state for a number": b"I1\n}b",
    "items for a text": b"Vx\nNa",
    "missing mark": b"t",
    "empty stack": b"0000",
    "state for a class": b"cevil\nThing\n}V__reduce__\nNsb",
    "unknown memo": b"h\x07",
    "storage without facts": tensor().replace(storage(), b"(Vstorage\ntQ"),
    "storage of a strange type": tensor().replace(b"FloatStorage", b"QInt8Storage"),
    "storage of terabytes": tensor(count=1 << 40),
    "storage of less than nothing": tensor(count=-1),
    "storage that is missing": tensor().replace(b"V0\n", b"V7\n"),
    "storage that leads elsewhere": tensor().replace(b"V0\n", b"V../../../etc/passwd\n"),
    "tensor beyond its storage": tensor(shape="(I5\nt"),
    "tensor behind its storage": tensor(offset=1),
    "tensor before its storage": tensor(offset=-1),
    "tensor of terabytes": tensor(shape="(I1000000000000\nt", stride="(I0\nt"),
    "tensor with a negative size": tensor(shape="(I-4\nt"),
    "tensor with a negative stride": tensor(stride="(I-1\nt", offset=3),
    "tensor with a stride beyond": tensor(stride="(I9\nt"),
    "tensor of many axes": tensor(shape="(" + "I1\n" * 99 + "t", stride="(" + "I1\n" * 99 + "t"),
    "tensor of a text": tensor(shape="Vx\n", stride="Vx\n"),
    "tensor without numbers": tensor(offset=0).replace(b"I0\n", b"N"),
}
# Actions of third-party classes in their own methods; here they stay records.
HARMLESS = {
    "class of a third party": b"cevil\nThing\n(Vtouch trap\ntR",
    "state of a third party": b"cevil\nThing\n)\x81}V__setstate__\ncos\nsystem\nsb",
    "giant memo": b"Nr\xff\xff\xff\x7f",
    "name alone": b"cos\nsystem\n",
    "items of a third party": b"cevil\nThing\n(tRNa",
    "entries of a third party": b"cevil\nThing\n(tRNNs",
}
PROGRAM = """
import json, sys, warnings
from pathlib import Path
from d2v.core.foreign import ForeignFileError, load_tensors, read_file
seen = []
def hook(event, args):
    if event in ("import", "os.system", "os.exec", "subprocess.Popen", "os.posix_spawn", "exec", "compile"):
        seen.append(f"{event} {args[:1]}")
    elif event == "open" and ("w" in str(args[1]) or "a" in str(args[1]) or "+" in str(args[1])):
        seen.append(f"{event} {args}")
    elif event.startswith(("socket.", "shutil.", "os.remove", "os.rename", "os.mkdir", "ctypes.")):
        seen.append(event)
paths = sorted(Path(sys.argv[1]).iterdir())
outcomes = {}
def outcome(path):
    try:
        return repr(read_file(path))[:200]
    except ForeignFileError as error:
        return f"refused: {error}"
outcome(paths[0])
before = set(sys.modules)
sys.addaudithook(hook)
for path in paths:
    outcomes[path.stem] = outcome(path)
print(json.dumps({"outcomes": outcomes, "seen": seen, "imported": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder, work = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("work")
    for name, value in (HARMFUL | HARMLESS).items():
        write_archive(folder / f"{name}.pt", holding(value), {"data/0": b"\0" * 16})
    reduced = pickle.dumps({"model": _Reduced(print, ("run",))}, 4)
    write_archive(folder / "pickled by Python.pt", reduced)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", dedent(PROGRAM), str(folder)], capture_output=True, text=True, check=False, cwd=work
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 60
    assert not list(work.iterdir()), "nothing may be written"
    found: dict = json.loads(done.stdout)
    return found


def test_nothing_is_run_imported_or_written(results):
    assert results["seen"] == []
    assert results["imported"] == []


@pytest.mark.parametrize("name", [*HARMFUL, "pickled by Python"])
def test_harmful_files_are_refused_in_one_line(results, name):
    outcome = results["outcomes"][name]
    assert outcome.startswith("refused: "), outcome
    assert f"{name}.pt: " in outcome
    assert "\n" not in outcome
    assert len(outcome) < 900


@pytest.mark.parametrize("name", HARMLESS)
def test_what_strangers_would_do_stays_a_record(results, name):
    assert not results["outcomes"][name].startswith("refused"), results["outcomes"][name]


def test_a_line_that_looks_like_two_is_one(tmp_path):
    path = write_archive(tmp_path / "file.pt", holding(b"cos\nsys\x1b[31mtem\n(tR"))
    with pytest.raises(ForeignFileError) as caught:
        read_file(path)
    assert "\x1b" not in str(caught.value)


def test_members_that_share_bytes_are_refused(tmp_path):
    """A small file may not claim its bytes many times over."""
    path = write_archive(tmp_path / "file.pt", holding(tensor()), {"data/0": b"\0" * 16, "data/1": b"\1" * 16})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        places = {info.filename: info.header_offset for info in archive.infolist()}
    one, other = (places[f"archive/data/{i}"].to_bytes(4, "little") for i in range(2))
    directory = content.rindex(b"archive/data/1") - 46
    assert content[directory + 42 : directory + 46] == other
    content[directory + 42 : directory + 46] = one
    path.write_bytes(content)
    with pytest.raises(ForeignFileError, match="share their"):
        read_file(path)


def test_compressed_members_are_refused(tmp_path):
    path = write_archive(tmp_path / "file.pt", holding(b"N"), {"x": b"\0" * 9999}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ForeignFileError, match="is compressed"):
        read_file(path)
