"""How the processes of a training share its work: one process, DDP, or FSDP2.

A strategy wraps the model, sums gradients over the processes, and gathers what a checkpoint needs. All give the same
gradients except for rounding, and the same checkpoints, so a run can be resumed with another strategy or on another
number of processes.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from d2v.core.nn import TransformerBlock
from d2v.core.nn.recompute import LargeResults, keeping_less
from d2v.core.train.ranks import world
from d2v.core.wrappers import load_plain_state, local_part, plain_state

StrategyName = Literal["auto", "single", "ddp", "fsdp"]
# Methods of our models that compute features apart from `forward`.
_METHODS = ("encode", "encode_teacher", "logits")


class Strategy:
    """Training in one process; the base of the others.

    `shard` comes before the optimiser is made. `fit` calls the other methods.

    >>> model = nn.Linear(2, 1)
    >>> strategy = Strategy()
    >>> strategy.shard(model)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> len(strategy.gradients(model.parameters(), 0.5)), sorted(strategy.tensors(model))
    (2, ['bias', 'weight'])
    """

    name: ClassVar[StrategyName] = "single"

    def __init__(self) -> None:
        self._large = LargeResults()

    def shard(self, model: nn.Module) -> None:
        """Distribute the parameters over the processes in place, if the strategy does so."""

    def wrap(self, model: nn.Module) -> Callable[..., Any]:
        """Return the function that computes a training step; parameters that thaw later must not be frozen now."""
        return model

    def micro_batch(self, model: Callable[..., Any], *, last: bool) -> AbstractContextManager[None]:
        """Return the context of a forward and backward pass; gradients may be summed over processes in the last one.

        Args:
            model: output of `wrap`.
            last: whether it is the last micro-batch of an update.
        """
        return nullcontext()

    def forward_pass(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass, which keeps less for the backward pass; see `keeping_less`."""
        return keeping_less(self._large)

    def gradients(self, parameters: Iterable[nn.Parameter], factor: float) -> list[Tensor]:
        """Return the gradients, summed over the processes and multiplied by a factor, in place.

        A sharded gradient is returned as the part on this process. Parameters without gradient on all processes, such
        as those of a skipped layer, are left out.
        """
        found = [local_part(one.grad) for one in parameters if one.requires_grad and one.grad is not None]
        if found:
            torch._foreach_mul_(found, factor * self._summed)
        return found

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """Return the total norm of gradients of all processes, on the device."""
        return get_total_norm(gradients)

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Have all parameters on every process, so that any method can be called, and on one process alone."""
        yield

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return parameters and buffers by their plain names, gathered from all processes, which all call this."""
        return {name: _full(tensor) for name, tensor in plain_state(model).items()}

    def load_tensors(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Load the output of `tensors`, from any strategy."""
        own = plain_state(model)
        load_plain_state(model, {name: _placed(tensor, own.get(name)) for name, tensor in tensors.items()})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of an optimiser, gathered from all processes, which all call this."""
        state = optimizer.state_dict()
        state["state"] = {
            number: {name: _full(value) if isinstance(value, Tensor) else value for name, value in one.items()}
            for number, one in state["state"].items()
        }
        return state

    def load_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Load the output of `optimizer_state`, from any strategy."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        of_number = dict(zip(numbers, parameters, strict=False))  # load_state_dict raises if the numbers differ
        placed = {
            number: {name: _placed(value, of_number.get(number)) for name, value in one.items()}
            for number, one in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": placed})

    @property
    def _summed(self) -> int:
        """Factor from the gradient that the processes computed together to the sum of theirs."""
        return 1


class Replicated(Strategy):
    """DDP: every process holds the whole model. Gradients are summed during the last backward pass of an update."""

    name: ClassVar[StrategyName] = "ddp"

    def wrap(self, model: nn.Module) -> Callable[..., Any]:
        """Return the model in DDP. Its buffers are those that were made or loaded on each process."""
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch below 2.14
        # A step may leave out layers and the parts of other modalities.
        options: dict[str, Any] = {"find_unused_parameters": True, "gradient_as_bucket_view": True, buffers: False}
        return DistributedDataParallel(model, **options)

    def micro_batch(self, model: Callable[..., Any], *, last: bool) -> AbstractContextManager[None]:
        """Sum gradients in the last micro-batch only."""
        assert isinstance(model, DistributedDataParallel)
        return nullcontext() if last else model.no_sync()

    @property
    def _summed(self) -> int:
        return world()[1]  # DDP averages


class Sharded(Strategy):
    """FSDP2: every process holds a share of each parameter, gradient and moment, of the student and of the teacher.

    Blocks are gathered when they run. Gradients are summed after every micro-batch, so that only shares are kept. An
    evaluation and a checkpoint gather the whole model.
    """

    name: ClassVar[StrategyName] = "fsdp"

    def shard(self, model: nn.Module) -> None:
        """Shard each transformer block, and the rest of the model together."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        # The branch of a block is a view, which nothing changes in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(next(model.parameters()).device.type, (world()[1],))
        for block in _blocks(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
        for method in _METHODS:
            if callable(getattr(model, method, None)):
                register_fsdp_forward_method(model, method)

    def forward_pass(self) -> AbstractContextManager[None]:
        """Keep all: a norm would be computed again when its parameters are no longer gathered."""
        return nullcontext()

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """Return the norm of the shares of all processes."""
        squared = get_total_norm(gradients).square()
        dist.all_reduce(squared)
        return squared.sqrt()

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Gather all parameters."""
        from torch.distributed.fsdp import FSDPModule

        parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(part is not model, recurse=False)
                part.reshard()

    @property
    def _summed(self) -> int:
        return world()[1]  # FSDP2 averages


def strategy_by_name(name: StrategyName) -> Strategy:
    """Return a strategy for the processes of this run; auto = one process, or DDP on several.

    Raises:
        ValueError: if the strategy and the number of processes do not fit.

    >>> strategy_by_name("auto").name
    'single'
    """
    workers = world()[1]
    if name == "auto":
        return Strategy() if workers == 1 else Replicated()
    if name == "single":
        if workers > 1:
            raise ValueError(f"strategy=single is for one process, and there are {workers}; use auto, ddp or fsdp")
        return Strategy()
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(f"strategy={name} needs the processes of torchrun, and there is one alone; use auto")
    return Replicated() if name == "ddp" else Sharded()


def _blocks(model: nn.Module) -> Iterable[nn.Module]:
    """The transformer blocks; of other encoders the members of their longest list of modules."""
    blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)]
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return blocks or max(lists, key=lambda one: sum(1 for _ in one), default=nn.ModuleList())


def _full(tensor: Tensor) -> Tensor:
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather().cpu()


def _placed(value: Any, like: Tensor | None) -> Any:
    """Return the share of a whole tensor that this process holds of a sharded one; other values are unchanged."""
    mesh = getattr(like, "device_mesh", None)
    if like is None or mesh is None or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Each process has the whole tensor, so nothing is sent.
    return distribute_tensor(value.to(like.device), mesh, like.placements, src_data_rank=None)
