"""CTC probe: how well a small recogniser reads frozen features of sequences, such as the frames of speech.

It is to labels that are sequences of symbols what the linear probe is to classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from d2v.core.finite import NotFiniteError
from d2v.core.labels import Symbols
from d2v.core.model import Batch, Encodes, Local
from d2v.core.nn import Dropout
from d2v.core.probes.encoding import Layers, encode_layers
from d2v.core.probes.results import Case, ProbeResults, Score
from d2v.core.scores import SymbolScorer
from d2v.core.validators import fraction, positive

_WARMUP = 0.1  # fraction of the updates
_SORTED_TOGETHER = 4  # batches: fewer leave more padding, more make the same samples meet in every epoch


@frozen(kw_only=True, eq=False)
class Sequences:
    """Features of n samples at each of their positions, with the symbols to read from them.

    Args:
        frames: float32 `t d` of each sample, on the CPU, without padding.
        symbols: numbers of the symbols of each sample.

    Raises:
        ValueError: if there are no samples.
    """

    frames: Sequence[Tensor]
    symbols: Sequence[Sequence[int]]

    def __attrs_post_init__(self) -> None:
        if not self.frames:
            raise ValueError("there are no batches to read features from")


@frozen(kw_only=True)
class SequenceProbing:
    """Settings of the CTC probe: a convolution and a linear layer on standardised features, trained with Adam.

    Args:
        epochs: passes over the training samples.
        batch_size: samples in an update.
        lr: peak learning rate; it rises over a tenth of the updates and then falls along a cosine.
        width: channels of the convolution.
        kernel: width of the convolution in positions, odd.
        dropout: of the features and of the convolution's output.
        heads: recognisers with different initial weights, of which mean and standard deviation are reported.
        seed: of the first recogniser; the others count on from it.

    Raises:
        ValueError: if a number is out of its range.

    >>> SequenceProbing(heads=1).kernel
    9
    """

    epochs: int = field(default=60, validator=validators.ge(1))
    batch_size: int = field(default=16, validator=validators.ge(1))
    lr: float = field(default=4e-3, validator=positive)
    width: int = field(default=128, validator=validators.ge(1))
    kernel: int = field(default=9, validator=validators.ge(1))
    dropout: float = field(default=0.2, validator=fraction)
    heads: int = field(default=3, validator=validators.ge(1))
    seed: int = field(default=0, validator=validators.ge(0))

    @kernel.validator
    def _check_kernel(self, _: object, kernel: int) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd, so that positions stay in place")

    def measure(
        self,
        name: str,
        parts: Mapping[str, Mapping[str, Sequences]],
        *,
        labels: Symbols,
        metric: str,
        advance: Callable[[], None] = lambda: None,
    ) -> ProbeResults:
        """Error rates on "test" of recognisers trained on "train", for each choice of layers.

        Args:
            name: of the features: raw, untrained or pretrained.
            parts: by split ("train", "test"), then by choice of layers.
            labels: the symbols, with a blank.
            metric: name of the error rate in the results.
            advance: called after each recogniser.

        Raises:
            ValueError: if the symbols have no blank.
        """
        scores = {}
        for layers, train in parts["train"].items():
            test = parts["test"][layers]
            errors = []
            for head in range(self.heads):
                errors.append(self._error(train, test, labels, self.seed + head))
                advance()
            scores[Case(name, layers, "-", "ctc")] = Score.of(errors)
        return ProbeResults(
            scores=scores,
            titles={"ctc": "CTC"},
            num_train=len(train.frames),
            num_test=len(test.frames),
            metric=metric,
        )

    def _error(self, train: Sequences, test: Sequences, labels: Symbols, seed: int) -> float:
        every = torch.cat(list(train.frames))
        std, mean = torch.std_mean(every, dim=0, correction=0)
        std = std.clamp(min=1e-6)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = self._fit([(x - mean) / std for x in train.frames], train.symbols, labels)
        scorer = SymbolScorer(labels)
        scorer.truths = [labels.text(one) for one in test.symbols]
        with torch.no_grad():
            paths = [head(((x - mean) / std)[None])[0].argmax(1) for x in test.frames]
        scorer.predictions = [labels.text(labels.collapse(path)) for path in paths]
        found = scorer.compute().metrics()
        return found["cer"] if "cer" in found else found["uer"]

    def _fit(self, frames: Sequence[Tensor], symbols: Sequence[Sequence[int]], labels: Symbols) -> nn.Module:
        head = _Head(frames[0].shape[1], labels.num_outputs, width=self.width, kernel=self.kernel, dropout=self.dropout)
        targets = [torch.tensor(one, dtype=torch.long) for one in symbols]
        updates = self.epochs * -(-len(frames) // self.batch_size)
        optimizer = torch.optim.AdamW(head.parameters(), lr=self.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=updates, pct_start=_WARMUP, cycle_momentum=False
        )
        for _ in range(self.epochs):
            for chosen in _batches([len(x) for x in frames], self.batch_size):
                lengths = torch.tensor([len(frames[i]) for i in chosen])
                logits = head(pad_sequence([frames[i] for i in chosen], batch_first=True))
                loss = F.ctc_loss(
                    logits.log_softmax(2).transpose(0, 1),
                    torch.cat([targets[i] for i in chosen]),
                    lengths,
                    torch.tensor([len(targets[i]) for i in chosen]),
                    blank=labels.blank_number,
                    reduction="sum",
                    zero_infinity=True,
                )
                optimizer.zero_grad()
                torch.autograd.backward(loss / len(chosen))
                optimizer.step()
                schedule.step()
        return head.eval()


def _batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of samples of similar length, in random order."""
    order = torch.randperm(len(lengths)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), _SORTED_TOGETHER * batch_size):
        together = sorted(order[start : start + _SORTED_TOGETHER * batch_size], key=lambda i: lengths[i])
        batches += [together[at : at + batch_size] for at in range(0, len(together), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches)).tolist()]


class _Head(nn.Module):
    def __init__(self, embed_dim: int, outputs: int, *, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.conv = nn.Conv1d(embed_dim, width, kernel, padding=kernel // 2)
        self.proj = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `b t c` of features `b t d`."""
        # The backward pass of GELU is slow on a transposed view.
        x = self.conv(self.dropout(x).transpose(1, 2)).transpose(1, 2).contiguous()
        out: Tensor = self.proj(self.dropout(F.gelu(x)))
        return out


def encoded_sequences(
    encoder: Encodes, batches: Iterable[Batch], *, labels: Symbols, layers: Mapping[str, Layers], depth: int
) -> dict[str, Sequences]:
    """Features of an encoder at each position, by choice of layers; see `encode_layers`.

    Raises:
        ValueError: as `encode_layers`, or if batches have no such labels.
    """
    frames: dict[str, list[Tensor]] = {name: [] for name in layers}
    symbols: list[list[int]] = []
    for batch in batches:
        symbols += labels.sequences(batch)
        for found in encode_layers(encoder, [batch], poolings=["tokens"], layers=layers, depth=depth):
            for name, poolings in found.values.items():
                frames[name] += _unpadded(poolings["tokens"], found.padding)
    return {name: Sequences(frames=some, symbols=symbols) for name, some in frames.items()}


def local_sequences(read: Callable[[Batch], Local], batches: Iterable[Batch], *, labels: Symbols) -> Sequences:
    """Features without an encoder: of a front end, or of the raw input.

    Raises:
        ValueError: if batches have no such labels.
        NotFiniteError: if features are not finite.
    """
    frames: list[Tensor] = []
    symbols: list[list[int]] = []
    for batch in batches:
        symbols += labels.sequences(batch)
        with torch.no_grad():
            local = read(batch)
        some = _unpadded(local.x.float().cpu(), None if local.padding is None else local.padding.cpu())
        if bad := [len(frames) + i for i, x in enumerate(some) if not bool(x.isfinite().all())]:
            raise NotFiniteError("features", bad)
        frames += some
    return Sequences(frames=frames, symbols=symbols)


def _unpadded(x: Tensor, padding: Tensor | None) -> list[Tensor]:
    return list(x) if padding is None else [row[~hidden] for row, hidden in zip(x, padding, strict=True)]
