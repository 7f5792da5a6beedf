"""Features of data2vec 1.0 models of base size: the library beside the classes of the transformers package.

A model of each modality is written with random weights as a folder of Hugging Face, and loaded by both: `load` and
`from_pretrained`. Both get the same padded batches of samples sorted by length, with their attention masks, and
alternate in one process; compare the ratio of the medians. On one CPU thread, seconds are CPU seconds of the process.
In bf16, transformers computes once with a model in bf16 and once with autocast, and the faster of the two counts.
Errors are the largest difference from transformers in fp32, as a fraction of its largest feature.

    OMP_NUM_THREADS=1 python benchmarks/inference.py --models vision,audio,text --precisions fp32,bf16 --json
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from attrs import frozen
from step import on_one_thread, timed
from torch import Tensor
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    Data2VecTextConfig,
    Data2VecTextModel,
    Data2VecVisionConfig,
    Data2VecVisionModel,
    PreTrainedModel,
)
from transformers.utils import logging

from d2v.core import Batch, load
from d2v.core.files import ConfigError
from d2v.core.jobs.kernels import processor
from d2v.core.jobs.ready import ReadyModel
from d2v.core.precision import FeaturePrecision

AGREE = 1e-4
_TOY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_RATE = 16_000


@frozen(kw_only=True)
class Sizes:
    """Sizes of a comparison.

    Args:
        depth: number of blocks; None = all.
        batches: number of batches of texts; recordings have a quarter of them and images one.
        rows: samples in a batch; recordings half of them.
        toy: whether models and samples are small enough for tests.
    """

    depth: int | None = None
    batches: int = 8
    rows: int = 8
    toy: bool = False

    def config(self, **toy: Any) -> dict[str, Any]:
        """Arguments of a configuration of transformers, with further ones if the model is small."""
        given = _TOY | toy if self.toy else {}
        return given | ({} if self.depth is None else {"num_hidden_layers": self.depth})


def vision(sizes: Sizes) -> tuple[PreTrainedModel, list[Batch]]:
    """A model like the published ones, and a batch of images."""
    config = Data2VecVisionConfig(use_relative_position_bias=True, **sizes.config(image_size=32, patch_size=8))
    images = torch.randn(sizes.rows, 3, config.image_size, config.image_size)
    return Data2VecVisionModel(config, add_pooling_layer=False), [Batch(source=images)]


def audio(sizes: Sizes) -> tuple[PreTrainedModel, list[Batch]]:
    """A model like the published ones, and batches of recordings of 2 to 12 s."""
    toy = {"conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 4, "conv_pos_kernel_size": 5}
    config = Data2VecAudioConfig(**sizes.config(**toy))
    batches = []
    for some in lengths(sizes, *((0.1, 0.3) if sizes.toy else (2, 12)), rate=_RATE, part=2):
        source = torch.randn(len(some), max(some)).masked_fill(padding(some), 0)
        batches.append(Batch(source=source, padding=padding(some)))
    return Data2VecAudioModel(config), batches


def text(sizes: Sizes) -> tuple[PreTrainedModel, list[Batch]]:
    """A model like the published ones, and batches of texts of 8 to 256 tokens."""
    config = Data2VecTextConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, **sizes.config())
    batches = []
    for some in lengths(sizes, 8, 24 if sizes.toy else 256):
        ids = torch.randint(4, config.vocab_size, (len(some), max(some))).masked_fill(padding(some), 1)
        batches.append(Batch(source=ids, padding=padding(some)))
    return Data2VecTextModel(config, add_pooling_layer=False), batches


MODELS = {"vision": vision, "audio": audio, "text": text}


def lengths(sizes: Sizes, shortest: float, longest: float, *, rate: int = 1, part: int = 1) -> list[list[int]]:
    """Lengths of the rows of each batch, drawn evenly and sorted."""
    rows, batches = -(-sizes.rows // part), -(-sizes.batches // part**2)
    drawn = torch.rand(rows * batches, generator=torch.Generator().manual_seed(0)).sort().values
    found = (rate * (shortest + (longest - shortest) * drawn)).long().view(batches, rows)
    return [some.tolist() for some in found]


def padding(lengths: list[int]) -> Tensor:
    """Padding of rows of these lengths."""
    return torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]


def library(model: ReadyModel, batches: list[Batch], precision: FeaturePrecision) -> list[Tensor]:
    """Features of the library."""
    return [model.features(batch, precision=precision).x for batch in batches]


@torch.no_grad()
def foreign(model: PreTrainedModel, batches: list[Batch], *, autocast: bool = False) -> list[Tensor]:
    """Features of a model of transformers, without its class token."""
    found = []
    for batch in batches:
        source = batch.source.to(model.dtype) if batch.source.is_floating_point() else batch.source
        mask = {} if batch.padding is None else {"attention_mask": (~batch.padding).long()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            x = model(source, **mask).last_hidden_state
        found.append(x[:, 1:] if source.dim() == 4 else x)
    return found


def error(found: list[Tensor], expected: list[Tensor], model: ReadyModel, batches: list[Batch]) -> float:
    """Largest difference from the expected features outside of padding, as a fraction of the largest of these."""
    worst = 0.0
    for x, y, batch in zip(found, expected, batches, strict=True):
        layout = model.encoder.layout(batch)  # type: ignore[operator]  # a backbone has it
        valid = slice(None) if layout.padding is None else ~layout.padding
        worst = max(worst, float((x.float() - y)[valid].abs().max() / y[valid].abs().max()))
    return worst


def measured(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Measure a model in all precisions."""
    torch.manual_seed(0)
    model, batches = MODELS[name](Sizes(depth=args.depth, batches=args.batches, rows=args.rows, toy=args.toy))
    with tempfile.TemporaryDirectory() as folder:
        model.eval().save_pretrained(folder)
        ours = load(folder, kernels=args.kernels.split(","))
        options = {} if name == "audio" else {"add_pooling_layer": False}
        theirs = type(model).from_pretrained(folder, **options).eval()
        half = type(model).from_pretrained(folder, dtype=torch.bfloat16, **options).eval()
    exact = foreign(theirs, batches)
    variants: dict[str, dict[str, Callable[[], list[Tensor]]]] = {
        "fp32": {"transformers": lambda: foreign(theirs, batches)},
        "bf16": {
            "transformers": lambda: foreign(half, batches),
            "autocast": lambda: foreign(theirs, batches, autocast=True),
        },
    }
    rows = []
    for precision in args.precisions.split(","):
        runs = {"library": partial(library, ours, batches, precision), **variants[precision]}
        errors = {one: error(run(), exact, ours, batches) for one, run in runs.items()}
        if precision == "fp32" and errors["library"] > AGREE:
            raise RuntimeError(f"{name}: features differ by {errors['library']:.1e}")
        seconds = {one: statistics.median(found) for one, found in timed(runs, args.rounds).items()}
        best = min((one for one in seconds if one != "library"), key=lambda one: seconds[one])
        row: dict[str, Any] = {"model": name, "precision": precision}
        row |= {
            "library": seconds["library"],
            "transformers": seconds[best],
            "ratio": seconds[best] / seconds["library"],
        }
        row |= {"kernels": ours.kernels(precision), "way": best, "errors": errors}
        row |= {"depth": model.config.num_hidden_layers, "shapes": [list(batch.source.shape) for batch in batches]}
        row |= {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        rows.append(row | {"clock": "cpu" if on_one_thread() else "wall"})
    return rows


def in_words(row: dict[str, Any]) -> str:
    """Return a row as a line of text."""
    return (
        f"{row['model']}, {row['precision']}: library {row['library']:.2f} s, transformers {row['transformers']:.2f} s "
        f"({row['way']}), ratio {row['ratio']:.2f}, kernels {', '.join(row['kernels'])}"
    )


def parsed() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--precisions", default="fp32,bf16", help="separated by commas")
    parser.add_argument("--kernels", default="auto", help="as in load: auto, plain or names with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8, help="of texts; a quarter of them of recordings")
    parser.add_argument("--rows", type=int, default=8, help="in a batch; half of them in one of recordings")
    parser.add_argument("--depth", type=int, help="number of blocks (default: all)")
    parser.add_argument("--toy", action="store_true", help="models and samples in a size for tests")
    parser.add_argument("--json", action="store_true", help="one object a line")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parsed()
    logging.disable_progress_bar()
    for name in args.models.split(","):
        if name not in MODELS:
            sys.exit(f"inference.py: no model {name!r}, only {', '.join(MODELS)}")
        try:
            for row in measured(args, name):
                print(json.dumps(row) if args.json else in_words(row), flush=True)
        except ConfigError as error:
            sys.exit(f"inference.py: {error}")


if __name__ == "__main__":
    main()
