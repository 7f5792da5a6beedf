"""Thousands of damaged and malicious model files: each loads or ends in one clear line, and nothing else happens.

They are read in a separate process. Its audit hook notes every file that is opened for writing, every process and
socket, and every module that is imported after one clean load of each file.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import mutations
import pytest
import torch

ROOT = Path(__file__).parents[2] / "parity/data"
FILES = [
    ROOT / "checkpoints" / name
    for name in (
        "audio_v1_ctc_finetuned.pt",
        "vision_v1_finetuned_mp_rank_00_model_states.pt",
        "vision_v1_pretrained_checkpoint-799.pth",
        "text_v1_pretrained.pt",
    )
]
CONFIGURED = [ROOT / "checkpoints/image_cls.pt", ROOT / "checkpoints/text_v1_pretrained.pt"]
FOLDERS = [ROOT / "hf" / name for name in ("text_seqcls", "vision_cls", "audio_ctc")]
SEED = int(os.environ.get("FUZZ_SEED", "0"))
PROGRAM = """
import json, resource, sys, time, warnings
from pathlib import Path
import torch
from d2v.core.files import open_model
torch.set_num_threads(1)
warnings.simplefilter("ignore")
clean, folder = sys.argv[2:], Path(sys.argv[1])
seen, outcomes, watching = [], {}, False
def hook(event, args):
    if not watching:
        return
    if event == "open":
        mode, flags = str(args[1]), args[2] if isinstance(args[2], int) else 0
        if any(letter in mode for letter in "wax+") or flags & 0o3:
            seen.append(f"{event} {args}")
    elif event.startswith(("socket.", "subprocess.", "shutil.", "os.system", "os.exec", "os.posix_spawn", "os.fork",
                           "os.spawn", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
                           "os.truncate", "os.chmod", "ctypes.", "webbrowser.", "urllib.", "http.")):
        seen.append(f"{event} {args[:1]}")
    elif event == "exec":  # "compile" alone is ast.parse, which reads a list of convolutions
        seen.append(f"{event} {args}")
sys.addaudithook(hook)
def outcome(path):
    try:
        return f"loaded {type(open_model(path).module).__name__}"
    except (ValueError, OSError) as error:
        return f"refused: {error}"
    except BaseException as error:
        return f"broken: {type(error).__name__}: {error}"
for path in [*clean, folder / "no file"]:
    outcome(Path(path))
outcome(folder)
before, slowest = set(sys.modules), 0.0
watching = True
for path in sorted(folder.iterdir()):
    start = time.monotonic()
    outcomes[path.name] = outcome(path)
    slowest = max(slowest, time.monotonic() - start)
watching = False
print(json.dumps({"outcomes": outcomes, "seen": seen, "imported": sorted(set(sys.modules) - before),
                  "slowest": slowest, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def write_cases(folder: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    configured = [torch.load(path, weights_only=True) for path in CONFIGURED]
    whole = [path.read_bytes() for path in FILES]
    for number in range(count):
        path, kind = folder / f"{seed}-{number}.pt", draw.randrange(10)
        if kind < 4:
            source = draw.choice(FILES)
            path.write_bytes(mutations.with_member(source, lambda one: mutations.damaged_bytes(one, draw), draw))
        elif kind < 7:
            one = draw.choice(configured)
            path.write_bytes(mutations.with_other_configuration({n: one[n] for n in ("cfg", "model")}, draw))
        elif kind < 8:
            path.write_bytes(mutations.damaged_bytes(draw.choice(whole), draw))
        else:
            mutations.damaged_folder(draw.choice(FOLDERS), path, draw)


def check_cases(tmp_path: Path, count: int, seed: int) -> dict[str, int]:
    """Read the cases; the number of them that load and that are refused."""
    folder, work = tmp_path / "files", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    write_cases(folder, count, seed)
    plain = tmp_path / "plain.pt"  # zipfile imports a codec for names in archives that Python wrote
    plain.write_bytes(mutations.with_member(FILES[0], lambda one: one, random.Random(0)))
    old = tmp_path / "old.pt"  # pickletools imports one for text in the oldest protocol
    torch.save(torch.load(FILES[1], weights_only=True), old, pickle_protocol=0)
    known = [*map(str, (*FILES, *CONFIGURED, *FOLDERS, plain, old))]
    done = subprocess.run(
        [sys.executable, "-c", dedent(PROGRAM), str(folder), *known],
        capture_output=True, text=True, check=False, cwd=work,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seen"] == []
    assert found["imported"] == []
    assert not list(work.iterdir())
    assert found["slowest"] < 60
    assert found["memory"] < 4 << 20  # KiB
    outcomes = found["outcomes"]
    unclear = {name: line for name, line in outcomes.items() if not _clear(name, line)}
    assert not unclear
    return {kind: sum(line.startswith(kind) for line in outcomes.values()) for kind in ("loaded", "refused")}


def _clear(name: str, line: str) -> bool:
    return line.startswith("loaded ") or (line.startswith("refused: ") and name in line and "\n" not in line)


def test_some_damaged_files(tmp_path: Path) -> None:
    assert min(check_cases(tmp_path, 30, SEED).values()) > 3  # the variants must reach the converters, too


@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(int(os.environ.get("FUZZ_CASES", "5000")) // 500))
def test_many_damaged_files(tmp_path: Path, part: int) -> None:
    check_cases(tmp_path, 500, SEED + 1 + part)
