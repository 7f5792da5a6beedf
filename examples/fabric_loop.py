"""Train a composed model under Lightning Fabric instead of `d2v.core.fit`.

Fabric handles devices, precision and the wrapping of the model; the loop is that of `bare_loop.py`. Losses and weights
equal those of `fit` on the same batches, bit for bit. Differences from other models under Fabric:

- Losses are sums with counts, so gradients are divided once, by the count of all micro-batches and processes. With
  several processes Fabric averages gradients; the division below turns the average into a sum and divides by the count.
- The teacher is updated after the optimiser step.
- Fabric casts tensors in a model's arguments and results. `Loss` hides the batch from it, so that only autocast
  determines the precision.
- `fabric.clip_gradients` computes the norm in the order of the optimiser's groups, `fit` in the order of the model. The
  last bit differs, and training in bf16 makes that difference visible.

Example: `python examples/fabric_loop.py --steps 100 --precision bf16-mixed` (needs the package lightning-fabric).
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from d2v.core import Batch, Data2Vec
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.train import set_rates
from d2v.core.train.ranks import dropout_seed


class Loss(nn.Module):
    """Module for Fabric to wrap: from a function that returns the batch to the loss and its count."""

    def __init__(self, model: Data2Vec) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Callable[[], Batch], update: int) -> tuple[Tensor, int]:
        """Run the model."""
        out = self.model(batch(), update=update)
        return out.loss_sum, out.sample_size


def train(
    fabric: Fabric,
    model: Data2Vec,
    data: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    steps: int,
    accumulate: int = 1,
    clip: float = 0.0,
    seed: int = 0,
) -> Iterator[float]:
    """Train for a number of updates; yield the loss of each, over all processes."""
    wrapped, optimizer = fabric.setup(Loss(model), optimizer)
    batches = iter(data)
    wrapped.train()
    for step in range(steps):
        set_rates(optimizer, schedule, step)
        optimizer.zero_grad()
        total = torch.zeros(2, device=fabric.device)  # sum of the loss, and its count
        for micro in range(accumulate):
            torch.manual_seed(dropout_seed(seed, step, fabric.global_rank, micro))
            with fabric.no_backward_sync(wrapped, enabled=micro + 1 < accumulate):
                loss_sum, sample_size = wrapped(partial(next(batches).to, fabric.device), step)
                fabric.backward(loss_sum)
            total += torch.stack([loss_sum.detach(), total.new_tensor(sample_size)])
        loss, count = fabric.all_reduce(total, reduce_op="sum").tolist()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= fabric.world_size / count
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        model.update_teacher(step + 1)
        yield loss / count


def main() -> None:
    """Train the small image model on the built-in digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--precision", default="32-true")
    args = parser.parse_args()
    settings = {"data.path": "digits", "out": "unused", "train.max_steps": args.steps}
    recipe = read_recipe("vision/small", settings, PretrainRecipe)
    fabric = Fabric(accelerator=args.accelerator, devices=args.devices, precision=args.precision)
    fabric.launch()
    torch.manual_seed(recipe.seed)
    model = recipe.model_config().build()
    data = recipe.data.build(
        "train",
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        training=True,
    )
    losses = train(
        fabric,
        model,
        data,
        recipe.optim.build(model),
        recipe.optim.build_schedule(args.steps),
        steps=args.steps,
        accumulate=recipe.train.accumulate,
        clip=recipe.optim.clip,
        seed=recipe.seed,
    )
    for step, loss in enumerate(losses, 1):
        if step % 10 == 0 or step == args.steps:
            fabric.print(f"step {step}/{args.steps}  loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
