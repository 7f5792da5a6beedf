"""Modules inside other modules: torch.compile, DDP, DataParallel and activation checkpoints.

A wrapper hides the methods of the module inside and puts a part of its own in front of every name. Whoever asks a
module what it can do, or names its tensors, looks inside first.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

# Asked for by name: importing the classes would import the compiler.
_COMPILED, _CHECKPOINTED = "_orig_mod", "_checkpoint_wrapped_module"


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside all wrappers; the module itself where there is none.

    >>> linear = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(linear)) is unwrapped(linear) is linear
    True
    """
    return _layers(module)[-1]


def named_parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A module and everything below it, with the names that they have without wrappers; shared modules come twice.

    >>> [name for name, _ in named_parts(nn.Sequential(nn.DataParallel(nn.Linear(2, 2))))]
    ['', '0']
    """
    module = unwrapped(module)
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None:
            yield from named_parts(child, f"{prefix}.{name}" if prefix else name)


def plain_name(module: nn.Module, name: str) -> str:
    """The name that a parameter or buffer has without wrappers.

    Args:
        module: that the name starts at.
        name: dotted, as `state_dict` gives it.

    >>> plain_name(nn.DataParallel(nn.Sequential(nn.Linear(2, 2))), "module.0.weight")
    '0.weight'
    """
    found: list[str] = []
    here: nn.Module | None = module
    for part in name.split("."):
        while here is not None and (own := _attribute(here)) is not None:
            here = here._modules[own]
            if part == own:
                break
        else:  # some wrappers leave themselves out of the names
            found.append(part)
            here = None if here is None else here._modules.get(part)
    return ".".join(found)


def load_plain_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """`load_state_dict` of tensors that have their plain names, whatever the module is wrapped in."""
    names = {plain_name(module, name): name for name in module.state_dict()}
    module.load_state_dict({names.get(name, name): tensor for name, tensor in state.items()})


def call_inside(module: nn.Module, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the module inside the wrappers.

    DDP adds up gradients only after its own `forward`, so the call goes through that. Other wrappers are passed by:
    torch.compile compiles `forward` alone, and DataParallel cannot divide what is not a tensor.

    Args:
        module: wrapped or not.
        method: its name.
        args: of the method.
        kwargs: of the method.

    >>> call_inside(nn.DataParallel(nn.Linear(2, 3)), "extra_repr")
    'in_features=2, out_features=3, bias=True'
    """
    layers = _layers(module)
    bound: Callable[..., Any] = getattr(layers[-1], method)
    parallel = next((layer for layer in layers if isinstance(layer, DistributedDataParallel)), None)
    if parallel is None:
        return bound(*args, **kwargs)
    inside = vars(parallel.module)
    own = {"forward": inside["forward"]} if "forward" in inside else {}

    def put_back() -> None:
        inside.pop("forward", None)
        inside.update(own)

    def forward(*args: Any, **kwargs: Any) -> Any:
        put_back()  # the method may call `forward` itself
        return bound(*args, **kwargs)

    inside["forward"] = forward
    try:
        return parallel(*args, **kwargs)
    finally:
        put_back()


def _layers(module: nn.Module) -> list[nn.Module]:
    """The module, and what is inside it, from the outermost to the innermost."""
    layers = [module]
    while (own := _attribute(layers[-1])) is not None:
        inside = layers[-1]._modules[own]
        assert inside is not None
        layers.append(inside)
    return layers


def _attribute(module: nn.Module) -> str | None:
    """What a wrapper calls the module inside; None = no wrapper."""
    if isinstance(module, DataParallel | DistributedDataParallel):
        return "module"
    return next((name for name in (_COMPILED, _CHECKPOINTED) if name in module._modules), None)
