"""Forward and backward passes of an update."""

from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen

from d2v.core.model import StepOutput
from d2v.core.nn.layer_drop import layers_drawn_from
from d2v.core.precision import Precision, autocast
from d2v.core.train.ahead import Ahead
from d2v.core.train.debug import Recorder
from d2v.core.train.ranks import dropout_seed, layer_drop_seed, world
from d2v.core.train.state import TrainingState


@frozen(kw_only=True)
class Passes:
    """One forward and backward pass for each micro-batch of an update; their gradients add up.

    Args:
        step: the model, as the strategy wraps it.
        batches: source of the micro-batches.
        precision: precision of the forward passes.
        device: device of the model.
        seed: seed of dropout and layer drop.
        recorder: keeps the batches, to save them if the update is not applied; None = they are not kept.
    """

    step: Callable[..., Any]
    batches: Ahead
    precision: Precision
    device: torch.device
    seed: int
    recorder: Recorder | None

    def run(self, now: TrainingState, *, max_steps: int, whole: bool) -> tuple[list[StepOutput], list[str | None]]:
        """Compute the gradients of the next update; return the outputs and modalities of its micro-batches.

        Args:
            now: state of the training.
            max_steps: number of updates of the training; no batch is read for one after them.
            whole: whether outputs have predictions and targets.
        """
        outputs, modalities = list[StepOutput](), list[str | None]()
        scale = 1.0 if now.loss_scale is None else now.loss_scale.value
        for micro in range(now.accumulate):
            batch, last = self.batches.take(now.step), micro + 1 == now.accumulate
            _seed(dropout_seed(self.seed, now.step, world()[0], micro), self.device)
            drawn = layers_drawn_from(layer_drop_seed(self.seed, now.step, micro))
            with now.strategy.micro_batch(self.step, last=last):
                with now.strategy.forward_pass(), autocast(self.precision, self.device), drawn:
                    output: StepOutput = self.step(batch, update=now.step)
                torch.autograd.backward(output.loss_sum * scale)
            if self.recorder is not None:
                self.recorder.see(micro, batch)
            modalities.append(batch.modality)
            outputs.append(_kept(output, whole=whole))
            if now.step + last < max_steps:  # while the device computes
                self.batches.fetch(now.step + last)
        return outputs, modalities


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that a forward pass may use."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` seeds those of all devices, and takes longer
    else:
        torch.manual_seed(seed)


def _kept(output: StepOutput, *, whole: bool) -> StepOutput:
    """Return the fields of an output that are needed after its backward pass."""
    return StepOutput(
        loss_sum=output.loss_sum.detach(),
        sample_size=output.sample_size,
        metrics=output.metrics,
        predictions=output.predictions if whole else None,
        targets=output.targets if whole else None,
        mask=output.mask if whole else None,
    )
