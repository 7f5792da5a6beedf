"""Training step of data2vec 2.0 and 1.0, for any encoder.

The student predicts, at the positions it does not see, the features that the teacher computes from the whole input. The
code does not branch on version or modality: these are determined by the modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from d2v.core.loss import RegressionLoss
from d2v.core.masks import Mask, Masker
from d2v.core.model.adapter import ModalityAdapter, repeat_rows
from d2v.core.model.backbone import Backbone, Start
from d2v.core.model.batch import Batch, Encoded, Layout, Local, Tokens, by_modality, pick
from d2v.core.model.batcher import MultimaskBatcher
from d2v.core.model.masking import mask_of, prepared
from d2v.core.model.predictors import Predictor
from d2v.core.nn import LayerSink
from d2v.core.teacher import EMATeacher, TargetAverager
from d2v.core.wrappers import call_inside, unwrapped

# Optional members of a student in addition to `encode`; see `Encodes`.
_ABILITIES = ("front", "tokens", "start_of", "pixels", "num_prefix_tokens")


@dataclass(frozen=True, kw_only=True, eq=False)
class StepOutput:
    """Output of a training step.

    Args:
        loss_sum: loss as a sum, a float32 scalar; minimise sum(loss_sum) / sum(sample_size).
        sample_size: count of the loss.
        metrics: name to (sum, count).
        predictions: `n d` at the hidden positions.
        targets: `n d` at the hidden positions.
        mask: mask of the step.
    """

    loss_sum: Tensor
    sample_size: int
    metrics: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    predictions: Tensor | None = None
    targets: Tensor | None = None
    mask: Mask | None = None


class Data2Vec(nn.Module):
    """Student, teacher, predictors and losses (data2vec 2.0, section 3; data2vec 1.0, section 3).

    loss_sum = regression_weight R + cls_weight n C + pixel_weight Q with n = number of hidden positions of all rows,
    R = loss over hidden positions, C = loss between the last extra token and the mean of the targets, summed over rows
    (it grows with the number of rows per worker, as published), Q = loss between `pixel_heads(predictions)` and the raw
    content.

    Args:
        student: a `Backbone`, or any other encoder with the `encode` method (see `Encodes`). It may be wrapped in
            torch.compile or DDP. Only `encode` is called, so compile its blocks rather than the whole module.
        teacher: moving average of the student.
        predictors: predictors by modality, or a single predictor.
        maskers: maskers by modality, or a single masker; None = batches contain their masks.
        targets: computes the targets from the teacher's layers; None = mean of all layers, each instance-normalised.
        loss: loss between predictions and targets; default: L2 / sqrt(d), as in the 2.0 image and speech models.
        num_masks: m, number of masked views of each sample.
        regression_weight: weight of R.
        cls_weight: weight of C; needs extra tokens.
        pixel_weight: weight of Q; needs pixel heads, and a student with `pixels`.
        pixel_heads: heads by modality, or a single head, from `n d` to `n p`.
        seed: seed of the masks.

    The teacher starts at the first stage from which it has all modules, given by the student's `start_of`: the raw
    input, the student's local features, or the student's tokens of the clean input. This is determined by
    `EMATeacher(leave_out=...)`. Without `start_of`, the teacher starts at the raw input.

    Raises:
        ValueError: if a class-token loss has no extra token, a pixel loss has no head, the teacher lacks a block that
            the targets need, there are no targets and the number of blocks is unknown, or a single predictor, masker or
            head is given for a student of several modalities.

    A minimal example on vectors instead of raw input (see `examples/pretrain_images.py` for a complete model):

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
            raise ValueError(f"the number of layers of a {type(self._inside).__name__} is unknown; give targets")
        return TargetAverager(range(depth))

    def _check_weights(self) -> None:
        if self.cls_weight and "num_prefix_tokens" in self._student_has:
            for name in self.predictors:
                if self._inside.num_prefix_tokens(name) == 0:
                    raise ValueError(
                        f"cls_weight={self.cls_weight} needs an extra token, but the {name!r} adapter has none; "
                        "set cls_weight=0 or add a class token"
                    )
        if self.pixel_weight and not self.pixel_heads:
            raise ValueError(
                f"pixel_weight={self.pixel_weight} needs pixel_heads; set it to 0 if no adapter has raw content"
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
                f"the targets need the teacher's block {last}, but the teacher has {depth} blocks; do not leave the "
                f"block out, or choose layers below {depth}"
            )

    def forward(self, batch: Batch, *, update: int) -> StepOutput:
        """Run one training step.

        Args:
            batch: b samples.
            update: number of finished updates; determines the masks together with the seed and the ids.

        Returns:
            The loss as sum and count; call `update_teacher` after the optimiser step.

        Raises:
            ValueError: if no position is hidden, or the mask does not fit the batch.
        """
        local = self.front(batch)
        mask = self.mask(batch, local, update=update)
        n = mask.index.shape[0]
        if n == 0:
            raise ValueError("the mask hides no position, so there is nothing to predict; increase the mask ratio")
        encoded: Encoded = call_inside(self.student, "encode", batch, mask, local=local)
        predictor: Predictor = pick(self.predictors, batch.modality, "predictor")
        predictions = predictor(encoded, mask)
        self.targets.clear()  # an aborted step may have left layer results
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
        """Compute the student's local features of a batch; None if it has no separate front end."""
        local: Local | None = self._inside.front(batch) if "front" in self._student_has else None
        return local

    def prepared(self, batch: Batch, *, update: int) -> Batch:
        """Return a batch on the CPU with the mask that `forward` would draw, so that no step waits for the device.

        The counts of a mask are known where it is drawn. A batch on another device, and one whose layout the student
        does not know before it computes features, is returned as it is. Then `forward` draws the mask.

        Args:
            batch: b samples.
            update: number of finished updates when the batch is used.

        Raises:
            ValueError: as `forward`, if a mask cannot be drawn.
        """
        return prepared(batch, self._inside, lambda layout: self.mask(batch, layout, update=update))

    def mask(self, batch: Batch, local: Local | Layout | None = None, *, update: int) -> Mask:
        """Return the batch's mask, or one drawn from (seed, update, ids).

        Args:
            batch: b samples.
            local: local features of the batch, or their layout; None = the axes and padding of the batch are those of
                the positions.
            update: number of finished updates.
        """
        if batch.mask is not None:  # then no masker is needed
            return batch.mask
        masker = pick(self.maskers, batch.modality, "masker")
        return mask_of(batch, local, masker, seed=self.seed, update=update, num_masks=self.num_masks)

    @torch.no_grad()
    def encode_teacher(self, batch: Batch, local: Local | None = None, *, sink: LayerSink) -> Encoded:
        """Run the teacher on the clean input, or on the batch's teacher view.

        Args:
            batch: b samples.
            local: the student's local features of the batch, the input of a teacher without front end.
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
        """Return the teacher's first stage: the raw input, the student's local features, or the student's tokens."""
        if "start_of" not in self._student_has:
            return "raw"
        return self._inside.start_of(unwrapped(self.teacher.module), modality)

    @property
    def _inside(self) -> Backbone:
        """The student without wrappers; a third-party encoder may have fewer members than a `Backbone`."""
        return unwrapped(self.student)  # type: ignore[return-value]  # a protocol

    def update_teacher(self, n: int) -> None:
        """Update the teacher, right after the n-th optimiser step (n >= 1)."""
        self.teacher.update(self.student, n)

    def _class_token_loss(self, encoded: Encoded, full_targets: Tensor) -> Tensor:
        token = encoded.class_token
        return self.loss.scaled_sum(token, repeat_rows(full_targets.mean(1), token.shape[0]))

    def _pixel_loss(self, batch: Batch, predictions: Tensor, mask: Mask) -> Tensor:
        pixels = MultimaskBatcher(mask).hidden(self._inside.pixels(batch))
        head: nn.Module = pick(self.pixel_heads, batch.modality, "pixel head")
        return self.loss.scaled_sum(head(predictions), pixels)
