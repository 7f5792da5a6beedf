"""Damaged and malicious variants of model files, drawn by a seed."""

import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

INSTRUCTIONS = (
    *(b"cos\nsystem\n(Vtouch trap\ntR", b"cbuiltins\nopen\n(Vtrap\nVw\ntR", b"csubprocess\nPopen\n(Vls\ntR"),
    *(b"csocket\nsocket\n)R", b"cantigravity\nx\n)R", b"cevil\nThing\n)\x81}b", b"\x93", b"R", b"b", b"0", b"2", b"."),
    *(b"(", b"t", b"l", b"d", b"u", b"e", b"s", b"a", b"}", b"]", b"N", b"Q", b"\x85", b"\x86", b"\x87", b"\x8f"),
    *(b"h\x00", b"j\xff\xff\xff\x7f", b"I999999999999\n", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"),
)
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 1000, 1 << 20, 1 << 31, 1 << 62, -(1 << 40), 10**30, 0.5, -1.0, 1e300),
    *("", "x", "NaN", "[(512, 10, 5)] * 99", "__import__('os').system('touch trap')", "a" * 10_000, "\0", "../x"),
    *([], [1], [1, 2, 3], [[]], {}, {"a": 1}, {"_name": "x"}, b"bytes", (1, 2)),
)


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, removed, repeated or inserted; or the end cut off."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        at = draw.randrange(len(changed) + 1)
        kind = draw.randrange(6)
        if kind == 0:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del changed[at : at + draw.choice([1, 2, 9, 100])]
        elif kind == 2:
            changed[at:at] = changed[at : at + draw.choice([1, 5, 50, 500])]
        elif kind == 3:
            changed[at:at] = draw.choice(INSTRUCTIONS)
        elif kind == 4:
            changed[at : at + 4] = struct.pack("<I", draw.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
        elif draw.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def with_member(path: Path, change: Callable[[bytes], bytes], draw: random.Random) -> bytes:
    """An archive whose pickle, or another member, is changed; its checksums are right."""
    written = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(written, "w") as made:
        names = archive.namelist()
        pickled = next(name for name in names if name.endswith("/data.pkl"))
        chosen = pickled if draw.random() < 0.85 else draw.choice(names)
        for name in names:
            content = archive.read(name)
            if name != chosen:
                made.writestr(name, content)
                continue
            what = draw.random()
            if what < 0.8 or name == pickled:
                made.writestr(name, change(content))
            elif what < 0.9:
                made.writestr(f"{name}{draw.choice(['x', '/', '/../../trap'])}", content)
    return written.getvalue()


def with_other_values(values: Any, draw: random.Random) -> Any:
    """Nested plain values, of which one is something else, removed, or new."""
    if not isinstance(values, dict) or not values:
        return draw.choice(JUNK)
    name = draw.choice(list(values))
    changed = dict(values)
    kind = draw.random()
    if isinstance(values[name], dict) and values[name] and kind < 0.85:
        changed[name] = with_other_values(values[name], draw)
    elif kind < 0.08:
        del changed[name]
    elif kind < 0.12:
        changed[draw.choice(["", "of_tomorrow", "format", name.upper() if isinstance(name, str) else "x"])] = 1
    else:
        changed[name] = draw.choice(JUNK)
    return changed


def with_other_configuration(contents: dict[str, Any], draw: random.Random) -> bytes:
    """A file of the same tensors with another configuration or other names."""
    changed = {**contents, "cfg": with_other_values(contents["cfg"], draw)}
    if draw.random() < 0.2:
        changed["model"] = with_other_values(contents["model"], draw)
    written = io.BytesIO()
    torch.save(changed, written)
    return written.getvalue()


def damaged_folder(source: Path, target: Path, draw: random.Random) -> None:
    """A folder of Hugging Face with another configuration, damaged weights, or a wrong index of divided ones."""
    shutil.copytree(source, target)
    weights, config = target / "model.safetensors", target / "config.json"
    kind = draw.random()
    if kind < 0.2:
        _divide(weights, draw)
        return
    if kind < 0.6:
        values = with_other_values(json.loads(config.read_text()), draw)
        config.write_text(json.dumps(values, default=str))
        return
    content = weights.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.5:
        header = with_other_values(json.loads(content[8 : 8 + length]), draw)
        changed = json.dumps(header, default=str).encode()
        weights.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    else:
        weights.write_bytes(damaged_bytes(content[: 8 + length], draw) + content[8 + length :])


def _divide(weights: Path, draw: random.Random) -> None:
    tensors = load_file(weights)
    weights.unlink()
    files = {"a.safetensors": dict(list(tensors.items())[::2]), "b.safetensors": dict(list(tensors.items())[1::2])}
    for file, part in files.items():
        save_file(part, weights.with_name(file))
    names = {name: file for file, part in files.items() for name in part}
    wrong = [*files, "c.safetensors", "../model.safetensors", "/dev/zero", "config.json", "", ".", 1, None]
    if draw.random() < 0.5:
        names |= {name: draw.choice(wrong) for name in draw.sample([*names, "new"], 2)}
    written = json.dumps({"metadata": {}, "weight_map": names}).encode()
    if draw.random() < 0.5:
        written = damaged_bytes(written, draw)
    weights.with_name("model.safetensors.index.json").write_bytes(written)
