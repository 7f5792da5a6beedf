"""A toy data set whose labels are of any kind, and a toy task for each kind; core knows none of them.

Below `installed()` they have kinds, so that recipes and model folders can name them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from attrs import frozen
from building import NEW, WIDTH
from torch import Tensor, nn

from d2v.core.data import Contents, DataConfig, DataError, FixedPlan, Loader, Splits
from d2v.core.files import add_kind, save
from d2v.core.files.kinds import role_of
from d2v.core.labels import Classes, Labels, MultiLabel, Number, Symbols
from d2v.core.model import AdapterConfig, Batch, ModalityAdapter, StepOutput, Student, StudentConfig
from d2v.core.scores import ClassScorer, MultiLabelScorer, NumberScorer, SymbolScorer
from d2v.core.task import Scorer, Task

SIZES = {"train": 24, "val": 7, "test": 5}
LABELS: dict[str, Labels] = {
    "classes": Classes(("red", "green", "blue")),
    "multi-label": MultiLabel(("red", "green", "blue")),
    "symbols": Symbols(("<s>", "|", "A"), blank="<s>", boundary="|"),
    "number": Number(0.0, 1.0),
}


class Samples:
    """Eight positions of three channels, drawn by the id; what is loud says what the label is."""

    def __init__(self, kind: str, split: str) -> None:
        self.kind, self.split = kind, split

    def __len__(self) -> int:
        return SIZES[self.split]

    def name(self, id: int) -> str:
        return f"{self.split}/{id}"

    def get(self, id: int, *, seed: int, epoch: int) -> tuple[Tensor, list[float]]:
        generator = torch.Generator().manual_seed(1000 * list(SIZES).index(self.split) + id)
        source = 0.1 * torch.randn(8, WIDTH, generator=generator)
        if self.kind == "classes":
            source[:, id % 3] += 1
            return source, [id % 3]
        if self.kind == "multi-label":
            bits = torch.tensor([id >> place & 1 for place in range(3)])
            return source + bits, bits.tolist()
        if self.kind == "number":
            return source + (id % 5) / 4, [(id % 5) / 4]
        # A or A|A: an A has two positions and then silence, a boundary too.
        source[0:2, 2] += 1
        if id % 2:
            source[3:5, 1] += 1
            source[6:8, 2] += 1
        return source, [2, 1, 2] if id % 2 else [2]


class Collate:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, samples: list[tuple[Tensor, list[float]]], ids: Tensor) -> Batch:
        source, rows = torch.stack([one for one, _ in samples]), [row for _, row in samples]
        lengths = None
        if self.kind == "symbols":
            lengths = torch.tensor([len(row) for row in rows])
            labels = nn.utils.rnn.pad_sequence([torch.tensor(row).long() for row in rows], batch_first=True)
        else:
            labels = torch.tensor(rows)
            labels = labels if self.kind == "multi-label" else labels[:, 0]
            labels = labels.long() if self.kind == "classes" else labels.float()
        return Batch(source=source, ids=ids, labels=labels, label_lengths=lengths)


@frozen(kw_only=True)
class ToyData:
    """Args: path: the kind of its labels."""

    inherited: ClassVar[tuple[str, ...]] = ()
    path: str

    def build(
        self,
        split: str | None,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
        labels: Labels | None = None,
    ) -> Loader[Any]:
        split = split or "test"
        if split not in SIZES:
            raise DataError(f"no split {split!r}")
        if labels is not None and labels != LABELS[self.path]:
            raise DataError(f"toys of {self.path} are not labelled with {type(labels).what}")
        plan = FixedPlan(
            n=SIZES[split],
            batch_size=batch_size,
            seed=seed,
            shuffle=training,
            drop_last=training,
            rank=rank,
            world_size=world_size,
        )
        return Loader(Samples(self.path, split), Collate(self.path), plan, endless=training)

    def preparation(self) -> Mapping[str, Any]:
        return {}

    def files(self) -> Mapping[str, bytes]:
        return {}

    def contents(self) -> Contents:
        return Contents(path=self.path, splits=SIZES)

    def splits(self) -> Splits:
        return Splits(train="train", val="val", test="test")

    def labels(self, wanted: type[Labels]) -> Labels:
        if type(LABELS[self.path]) is not wanted:
            raise DataError(f"data.path={self.path!r}: toys with {wanted.what} are sold elsewhere")
        return LABELS[self.path]

    def match(self, adapter: ModalityAdapter) -> None:
        pass

    def matching(self, adapter: AdapterConfig) -> AdapterConfig:
        return adapter


class Head(nn.Module):
    """A linear layer on the mean of the positions, or on each."""

    def __init__(self, encoder: nn.Module, num_outputs: int, *, task: "ToyTask", embed_dim: int) -> None:
        super().__init__()
        self.encoder, self.task = encoder, task
        self.linear = nn.Linear(embed_dim, num_outputs)

    def logits(self, batch: Batch) -> Tensor:
        encoded = self.encoder.encode(batch)  # type: ignore[operator]
        x = encoded.x[:, encoded.num_prefix_tokens :]
        scores: Tensor = self.linear(x if isinstance(self.task, ToySymbols) else x.mean(1))
        return scores * self.task.scale

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        return StepOutput(loss_sum=self.task.loss(self.logits(batch), batch), sample_size=batch.size)


@frozen(kw_only=True)
class ToyTask:
    """Args: scale: of the logits; built in."""

    modality: ClassVar[str] = "toy"
    labels: ClassVar[type[Labels]]
    best: ClassVar[str]
    use_options: ClassVar[frozenset[str]] = frozenset()
    scale: float = 1.0

    def adapt(self, config: StudentConfig) -> StudentConfig:
        return config

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> nn.Module:
        return Head(encoder, labels.num_outputs, task=self, embed_dim=embed_dim)  # type: ignore[arg-type]

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Any:
        return module.logits(batch)  # type: ignore[operator]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def scorer(self, labels: Labels) -> Scorer:
        raise NotImplementedError

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        return [{"answer": row} for row in self.outputs(module, batch, labels=labels).tolist()]


@frozen(kw_only=True)
class ToyClasses(ToyTask):
    labels: ClassVar[type[Labels]] = Classes
    best: ClassVar[str] = "accuracy"

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.labels, reduction="sum")

    def scorer(self, labels: Labels) -> Scorer:
        assert isinstance(labels, Classes)
        return ClassScorer(labels, metrics=("mcc", "f1", "calibration_error"))


@frozen(kw_only=True)
class ToyMultiLabel(ToyTask):
    labels: ClassVar[type[Labels]] = MultiLabel
    best: ClassVar[str] = "map"

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")

    def scorer(self, labels: Labels) -> Scorer:
        assert isinstance(labels, MultiLabel)
        return MultiLabelScorer(labels)


@frozen(kw_only=True)
class ToyNumber(ToyTask):
    labels: ClassVar[type[Labels]] = Number
    best: ClassVar[str] = "pearson_and_spearman"

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Any:
        return module.logits(batch)[:, 0]  # type: ignore[operator]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.mse_loss(logits[:, 0], batch.labels, reduction="sum")

    def scorer(self, labels: Labels) -> Scorer:
        assert isinstance(labels, Number)
        return NumberScorer(labels)


@frozen(kw_only=True)
class ToySymbols(ToyTask):
    """Args: longest: maximal number of predicted symbols; may be set at use."""

    labels: ClassVar[type[Labels]] = Symbols
    best: ClassVar[str] = "wer"
    use_options: ClassVar[frozenset[str]] = frozenset({"longest"})
    longest: int = 100

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        frames = torch.full((batch.size,), logits.shape[1])
        return F.ctc_loss(
            logits.log_softmax(2).transpose(0, 1), batch.labels, frames, batch.label_lengths, reduction="sum"
        )

    def outputs(self, module: nn.Module, batch: Batch, *, labels: Labels) -> Any:
        return self.decode(self.results(module, batch), labels=labels)

    def results(self, module: nn.Module, batch: Batch) -> list[Tensor]:
        return list(module.logits(batch).argmax(2))  # type: ignore[operator]

    def decode(self, results: list[Tensor], *, labels: Labels) -> list[list[int]]:
        assert isinstance(labels, Symbols)
        return [labels.collapse(path)[: self.longest] for path in results]

    def scorer(self, labels: Labels) -> Scorer:
        assert isinstance(labels, Symbols)
        return SymbolScorer(labels)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        assert isinstance(labels, Symbols)
        return [{"text": labels.text(numbers)} for numbers in self.outputs(module, batch, labels=labels)]


TASKS: dict[str, type[ToyTask]] = {
    "classes": ToyClasses,
    "multi-label": ToyMultiLabel,
    "symbols": ToySymbols,
    "number": ToyNumber,
}


@contextmanager
def installed() -> Iterator[None]:
    """The toys have kinds meanwhile; their adapter has one always."""
    kinds = [(DataConfig, "toy", ToyData)]
    kinds += [(Task, f"toy/{kind}", task) for kind, task in TASKS.items()]
    for declared, kind, config in kinds:
        add_kind(declared, kind, config)
    yield
    for declared, kind, _ in kinds:
        role = role_of(declared)
        del role.own[kind]


def prepared(folder: Path, kind: str, **task: Any) -> dict[str, Any]:
    """A recipe `recipe.yaml` for labels of a kind, a pretrained model next to it, and what a fine-tuning is given."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    if not (folder / "pretrained").exists():
        save(folder / "pretrained", NEW.build(), NEW)
    options = "".join(f", {name}: {value}" for name, value in task.items())
    (folder / "recipe.yaml").write_text(
        f"task: {{kind: toy/{kind}{options}}}\n"
        "data: {kind: toy}\n"
        "optim: {lr: 1e-2, schedule: {kind: cosine, warmup: 1}}\n"
        "train: {max_steps: 30, batch_size: 8, log_every: 10}\n"
        "validation: {every: 10}\n"
    )
    return {"model": str(folder / "pretrained"), "data.path": kind, "out": str(folder / kind), "device": "cpu"}
