"""Check folders of reference numbers and checkpoint files: `python tests/parity/check.py PATH...`.

Prints one JSON object a line for each path and exits with 1 if one fails. It computes nothing of a model: it converts
the folder's configuration and tensors as a user would, runs the model, and compares.
"""

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import case_beit
import case_checkpoint
import case_decoding
import case_finetune
import case_former
import case_hugging_face
import case_image
import case_multimodal
import case_text
from compare import compare
from reading import Tensors, read

Run = Callable[[dict[str, Any], Tensors, Tensors], tuple[Tensors, Tensors]]


def kind_of(config: dict[str, Any]) -> Run:
    """What runs a case of a configuration."""
    if case_finetune.is_finetuning(config):
        return case_finetune.run
    if case_image.is_image(config):
        return case_image.run
    if case_text.is_text(config):
        return case_text.run
    if "model_cfg" not in config:
        return case_multimodal.run
    return case_beit.run if "train_cfg" in config else case_former.run


def ran(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # unknown fields of foreign configurations
        return kind_of(config)(config, tensors, io)


def case(path: Path) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of a folder or a checkpoint file."""
    if path.suffix in case_checkpoint.SUFFIXES:
        return case_checkpoint.run(path)
    if case_hugging_face.is_hugging_face(path):
        return case_hugging_face.run(path)
    if not (path / "config.json").is_file() or not (path / "model.safetensors").is_file():
        raise ValueError("not a model case: config.json or model.safetensors is missing")
    return ran(*read(path))


def check(path: Path) -> dict[str, object]:
    """The result for one path."""
    try:
        problems, largest = case_decoding.compare(path) if case_decoding.is_decoding(path) else compare(*case(path))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return {"case": str(path), "ok": False, "max": {}, "error": line}
    result: dict[str, object] = {"case": str(path), "ok": not problems, "max": largest}
    return result | ({"error": "; ".join(problems[:20])} if problems else {})


def main(paths: list[str]) -> int:
    """Check every path; 0 if all agree."""
    if not paths:
        print("usage: python tests/parity/check.py PATH...", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    results = [check(Path(path)) for path in paths]
    for result in results:
        print(json.dumps(result))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
