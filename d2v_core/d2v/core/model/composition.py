"""One training step of data2vec, 2.0 or 1.0, over any encoder.

The student predicts, at the positions it does not see, what the teacher makes of the whole input. Neither a version
nor a modality's name is branched on: the parts that are put together decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from d2v.core.loss import RegressionLoss
from d2v.core.masks import Draw, Mask, Masker
from d2v.core.model.adapter import ModalityAdapter, repeat_rows
from d2v.core.model.backbone import Backbone, Start
from d2v.core.model.batch import Batch, Encoded, Local, Tokens, by_modality, pick
from d2v.core.model.batcher import MultimaskBatcher
from d2v.core.model.predictors import Predictor
from d2v.core.nn import LayerSink
from d2v.core.teacher import EMATeacher, TargetAverager
from d2v.core.wrappers import call_inside, unwrapped

# What a student may have beside `encode`; see `Encodes`.
_ABILITIES = ("front", "tokens", "start_of", "pixels", "num_prefix_tokens")


@dataclass(frozen=True, kw_only=True, eq=False)
class StepOutput:
    """What a training step gives to its loop.

    Args:
        loss_sum: the loss as a sum, a float32 scalar; minimise sum(loss_sum) / sum(sample_size).
        sample_size: its count.
        metrics: name to (sum, count).
        predictions: `n d` at the hidden positions.
        targets: `n d` at the hidden positions.
        mask: the mask of the step.
    """

    loss_sum: Tensor
    sample_size: int
    metrics: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    predictions: Tensor | None = None
    targets: Tensor | None = None
    mask: Mask | None = None


class Data2Vec(nn.Module):
    """Student, teacher, predictors and losses (data2vec 2.0, section 3; data2vec 1.0, section 3).

    loss_sum = regression_weight R + cls_weight n C + pixel_weight Q with n = hidden positions of all rows, R = loss
    over hidden positions, C = loss between the last extra token and the mean of the targets, summed over rows (so it
    grows with the rows of a worker: the published definition), Q = loss between `pixel_heads(predictions)` and the raw
    content.

    Args:
        student: a `Backbone`, or any other encoder with its `encode` method (see `Encodes`). It may be wrapped in
            torch.compile or DDP; only `encode` is called, so compile its blocks rather than the whole.
        teacher: average of the student.
        predictors: by modality; of one modality the predictor alone.
        maskers: likewise; None where batches bring their masks.
        targets: reads the teacher's layers; None = the mean of all of them, each instance-normalised.
        loss: of predictions and targets; by itself L2 / sqrt(d), that of the 2.0 image and speech models.
        num_masks: m, masked views of each sample.
        regression_weight: of R.
        cls_weight: of C; needs extra tokens.
        pixel_weight: of Q; needs pixel heads, and a student with `pixels`.
        pixel_heads: by modality or the only one, `n d` to `n p`.
        seed: of the masks.

    The teacher starts at the first stage from which on it has every part, as the student's `start_of` says: the raw
    input, the student's local features, or the student's own tokens of the clean input. So `EMATeacher(leave_out=...)`
    alone decides. Without `start_of` it starts at the raw input.

    Raises:
        ValueError: if a class-token loss has no extra token, a pixel loss no head, the teacher lacks a block that the
            targets need, the number of blocks is not known and there are no targets, or a part is given alone to a
            student of several modalities.

    A toy over vectors that are features already (`examples/pretrain_images.py` composes the real thing):

    >>> from d2v.core import MaskedHead, ModalityAdapter, RandomMasker, TransformerEncoder
    >>> class Front(nn.Module):
    ...     def forward(self, batch):
    ...         return Local(x=batch.source, padding=None, grid=(batch.source.shape[1],))
    >>> student = Backbone(
    ...     ModalityAdapter(Front()), TransformerEncoder.stack(8, depth=1, num_heads=2), visible_only=False
    ... )
    >>> model = Data2Vec(student, EMATeacher(student, 0.99), MaskedHead(8), RandomMasker(mask_prob=0.5))
    >>> out = model(Batch(source=torch.randn(2, 6, 8)), update=0)
    >>> out.sample_size, out.predictions.shape
    (6, torch.Size([6, 8]))
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: EMATeacher,
        predictors: nn.Module | Mapping[str, nn.Module],
        maskers: Masker | Mapping[str, Masker] | None = None,
        *,
        targets: TargetAverager | None = None,
        loss: RegressionLoss = RegressionLoss(),  # noqa: B008 - it is frozen
        num_masks: int = 1,
        regression_weight: float = 1.0,
        cls_weight: float = 0.0,
        pixel_weight: float = 0.0,
        pixel_heads: nn.Module | Mapping[str, nn.Module] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        names = getattr(self._inside, "modalities", (ModalityAdapter.modality,))
        self.predictors = nn.ModuleDict(by_modality(predictors, names, "predictor"))
        self.pixel_heads = nn.ModuleDict(by_modality({} if pixel_heads is None else pixel_heads, names, "pixel head"))
        self.maskers = by_modality({} if maskers is None else maskers, names, "masker")
        self.targets = self._all_layers() if targets is None else targets
        self.loss = loss
        self.num_masks = num_masks
        self.regression_weight = regression_weight
        self.cls_weight = cls_weight
        self.pixel_weight = pixel_weight
        self.seed = seed
        self._student_has = frozenset(name for name in _ABILITIES if callable(getattr(self._inside, name, None)))
        self._check_weights()
        self._check_teacher()

    def _all_layers(self) -> TargetAverager:
        depth = getattr(self._inside, "depth", None)
        if not isinstance(depth, int):
            raise ValueError(f"how many layers a {type(self._inside).__name__} has is not known; give targets")
        return TargetAverager(range(depth))

    def _check_weights(self) -> None:
        if self.cls_weight and "num_prefix_tokens" in self._student_has:
            for name in self.predictors:
                if self._inside.num_prefix_tokens(name) == 0:
                    raise ValueError(
                        f"cls_weight={self.cls_weight}, but the {name!r} adapter has no extra token to learn from; "
                        "set cls_weight=0 or add a class token"
                    )
        if self.pixel_weight and not self.pixel_heads:
            raise ValueError(
                f"pixel_weight={self.pixel_weight} needs pixel_heads; set it to 0 where no adapter has raw content"
            )
        if self.pixel_weight and "pixels" not in self._student_has:
            raise ValueError(
                f"pixel_weight={self.pixel_weight} needs a student with a method pixels(batch), which "
                f"{type(self._inside).__name__} lacks; set it to 0"
            )

    def _check_teacher(self) -> None:
        depth, last = getattr(unwrapped(self.teacher.module), "depth", None), max(self.targets.wants)
        if isinstance(depth, int) and depth <= last:
            raise ValueError(
                f"the teacher needs its encoder up to block {last} for the targets; do not leave that out, or choose "
                f"layers below {depth}"
            )

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """One step.

        Args:
            batch: b samples.
            update: finished updates; with the seed and the ids it decides the masks.

        Returns:
            The loss as sum and count; call `update_teacher` after the optimiser step.

        Raises:
            ValueError: if no position is hidden, or the mask does not fit the batch.
        """
        local = self.front(batch)
        mask = self.mask(batch, local, update=update)
        n = mask.index.shape[0]
        if n == 0:
            raise ValueError("the mask hides no position, so there is nothing to predict; raise the mask ratio")
        encoded: Encoded = call_inside(self.student, "encode", batch, mask, local=local)
        predictor: Predictor = pick(self.predictors, batch.modality, "predictor")
        predictions = predictor(encoded, mask)
        self.targets.clear()  # of a step that was broken off
        self.encode_teacher(batch, local, sink=self.targets)
        full_targets = self.targets.finish()
        targets = MultimaskBatcher(mask).hidden(full_targets)
        regression, sample_size = self.loss(predictions, targets)
        terms = {"regression": self.regression_weight * regression}
        if self.cls_weight:
            terms["cls"] = self.cls_weight * n * self._class_token_loss(encoded, full_targets)
        if self.pixel_weight:
            terms["pixels"] = self.pixel_weight * self._pixel_loss(batch, predictions, mask)
        return StepOutput(
            loss_sum=torch.stack(list(terms.values())).sum(),
            sample_size=sample_size,
            metrics={name: (term.detach(), sample_size) for name, term in terms.items()},
            predictions=predictions.detach(),
            targets=targets,
            mask=mask,
        )

    def front(self, batch: Batch) -> Local | None:
        """The student's local features of a batch; None if it has no front end of its own."""
        local: Local | None = self._inside.front(batch) if "front" in self._student_has else None
        return local

    def mask(self, batch: Batch, local: Local | None = None, *, update: int) -> Mask:
        """The given mask, or one drawn from (seed, update, ids).

        Args:
            batch: b samples.
            local: its local features; without them the batch's own axes and padding are those of the positions.
            update: finished updates.
        """
        if batch.mask is not None:
            return batch.mask
        masker = pick(self.maskers, batch.modality, "masker")
        grid = tuple(batch.source.shape[1:]) if local is None else tuple(local.grid)
        padding = batch.padding if local is None else local.padding
        device = batch.source.device
        ids = torch.arange(batch.size, device=device) if batch.ids is None else batch.ids.to(device)
        lengths = None if padding is None else (~padding).sum(1)
        draw = Draw(seed=self.seed, update=update, ids=ids)
        return masker(batch.size, grid, num_masks=self.num_masks, draw=draw, lengths=lengths)

    @torch.no_grad()
    def encode_teacher(self, batch: Batch, local: Local | None = None, *, sink: LayerSink) -> Encoded:
        """Run the teacher on the clean input, or on the batch's view for it.

        Args:
            batch: b samples.
            local: the student's local features of the batch, which a teacher without front end starts from.
            sink: receives the teacher's layer results.
        """
        seen = batch.seen_by_teacher()
        start = self.teacher_start(batch.modality)
        given: dict[str, Local | Tokens] = {}
        if start != "raw":
            if local is None or seen is not batch:
                local = self._inside.front(seen)
            given = {"local": local} if start == "local" else {"tokens": self._inside.tokens(seen, local)}
        encoded: Encoded = call_inside(self.teacher.module, "encode", seen, **given, sink=sink)
        return encoded

    def teacher_start(self, modality: str | None = None) -> Start:
        """Where the teacher starts: at the raw input, the student's local features, or the student's tokens."""
        if "start_of" not in self._student_has:
            return "raw"
        return self._inside.start_of(unwrapped(self.teacher.module), modality)

    @property
    def _inside(self) -> Backbone:
        """The student without wrappers; any other encoder may have less than a `Backbone`."""
        return unwrapped(self.student)  # type: ignore[return-value]

    def update_teacher(self, n: int) -> None:
        """Let the teacher follow, right after the n-th optimiser step (n >= 1)."""
        self.teacher.update(self.student, n)

    def _class_token_loss(self, encoded: Encoded, full_targets: Tensor) -> Tensor:
        token = encoded.class_token
        return self.loss.scaled_sum(token, repeat_rows(full_targets.mean(1), token.shape[0]))

    def _pixel_loss(self, batch: Batch, predictions: Tensor, mask: Mask) -> Tensor:
        pixels = MultimaskBatcher(mask).hidden(self._inside.pixels(batch))
        head: nn.Module = pick(self.pixel_heads, batch.modality, "pixel head")
        return self.loss.scaled_sum(head(predictions), pixels)
