"""How much features change when long recordings are read in windows.

Extracts the tokens of a folder of recordings twice, whole and in windows (`d2v extract window=`), and prints the
relative difference of a frame, |windowed - whole| / |whole|, over all frames of recordings longer than the window:
median, 95th percentile and maximum. Example: `python benchmarks/windows.py run recordings --seconds 5,10,20`.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import d2v.core


def tokens(model: str, recordings: str, out: Path, *, layers: str, window: int | None) -> tuple[Tensor, Tensor]:
    """Features `n t d` of the recordings, and their padding `n t`."""
    values = {"layers": "final" if layers == "final" else [int(one) for one in layers.split(",") if one]}
    d2v.core.extract(
        model=model, data={"path": recordings}, pooling="tokens", window=window, batch_size=1, out=str(out), **values
    )
    read = load_file(out)
    features = read["features"].float()
    return features, read.get("padding", torch.zeros(features.shape[:2], dtype=torch.bool))


def differences(whole: Tensor, windowed: Tensor, padding: Tensor, *, longer_than: int) -> Tensor:
    """Relative difference of each frame of the sequences with more frames than `longer_than`.

    >>> differences(torch.ones(1, 2, 4), torch.ones(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool), longer_than=1)
    tensor([0., 0.])
    """
    used = ~padding & ((~padding).sum(1, keepdim=True) > longer_than)
    return ((windowed - whole).norm(dim=2) / whole.norm(dim=2).clamp(min=1e-12))[used]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run, model folder or published checkpoint")
    parser.add_argument("recordings", help="folder of recordings, some of them longer than the windows")
    parser.add_argument("--seconds", default="5,10,20", help="lengths of the windows")
    parser.add_argument("--layers", default="", help="blocks to average, such as 1,2; empty = all; or final")
    chosen = parser.parse_args()

    model = d2v.core.load(chosen.model)
    rate = model.description.data["audio"]["sample_rate"]
    front = model.encoder.adapter("audio").front
    with tempfile.TemporaryDirectory() as folder:
        whole, padding = tokens(
            chosen.model, chosen.recordings, Path(folder, "whole.safetensors"), layers=chosen.layers, window=None
        )
        print("| window (s) | frames compared | median | 95 % | largest |\n|---|---|---|---|---|")
        for seconds in chosen.seconds.split(","):
            window = round(float(seconds) * rate)
            out = Path(folder, "windowed.safetensors")
            windowed, _ = tokens(chosen.model, chosen.recordings, out, layers=chosen.layers, window=window)
            found = differences(whole, windowed, padding, longer_than=front.num_frames(window))
            if not len(found):
                raise SystemExit(f"no recording is longer than {seconds} s")
            middle, high = found.quantile(torch.tensor([0.5, 0.95])).tolist()
            print(f"| {seconds} | {len(found)} | {middle:.3f} | {high:.3f} | {found.max():.3f} |")


if __name__ == "__main__":
    main()
