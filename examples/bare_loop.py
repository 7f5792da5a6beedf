"""Train a composed model in your own loop instead of `d2v.core.fit`.

`train` below is a complete data2vec training loop; its losses and weights equal those of `fit`, bit for bit. The order
matters: learning rates, gradients, optimiser step, then the teacher. Losses are sums with counts, and everything random
is a function of integers. Every piece can be replaced: use any optimiser, any iterable of batches, any schedule that
maps finished updates to a learning rate. `fit` adds checkpoints, metrics, half precision, several processes and a
schedule of the weight decay.

Example: `python examples/bare_loop.py --steps 100`.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from d2v.core import Batch, Data2Vec
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.train import set_rates
from d2v.core.train.ranks import dropout_seed


def train(
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
    """Train for a number of updates; yield the loss of each."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batches = iter(data)
    model.train()
    for step in range(steps):
        set_rates(optimizer, schedule, step)
        optimizer.zero_grad()
        loss, count = torch.zeros(()), 0
        for micro in range(accumulate):
            # Seeds the decoder's noise and dropout; masks have their own seed in the model.
            torch.manual_seed(dropout_seed(seed, step, 0, micro))
            out = model(next(batches), update=step)
            out.loss_sum.backward()
            loss += out.loss_sum.detach()
            count += out.sample_size
        # Divide once, by the total count, since micro-batches may have different counts.
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad *= 1 / count
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        model.update_teacher(step + 1)
        yield loss.item() / count


def main() -> None:
    """Train the small image model on the built-in digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    settings = {"data.path": "digits", "out": "unused", "train.max_steps": args.steps}
    recipe = read_recipe("vision/small", settings, PretrainRecipe)
    torch.manual_seed(recipe.seed)
    model = recipe.model_config().build()
    losses = train(
        model,
        recipe.data.build("train", batch_size=recipe.train.batch_size, seed=recipe.seed, training=True),
        recipe.optim.build(model),
        recipe.optim.build_schedule(args.steps),
        steps=args.steps,
        accumulate=recipe.train.accumulate,
        clip=recipe.optim.clip,
        seed=recipe.seed,
    )
    for step, loss in enumerate(losses, 1):
        if step % 10 == 0 or step == args.steps:
            print(f"step {step}/{args.steps}  loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
