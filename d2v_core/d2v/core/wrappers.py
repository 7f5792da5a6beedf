"""Wrapped modules: torch.compile, DDP, DataParallel and activation checkpointing.

A wrapper hides the methods of the module inside and adds a prefix to every name. Code that looks for a method of a
module, or for names of its tensors, must unwrap it first.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

# Detected by name: importing the classes would import the compiler.
_COMPILED, _CHECKPOINTED = "_orig_mod", "_checkpoint_wrapped_module"
_PARALLEL = (DataParallel, DistributedDataParallel)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside all wrappers; a module without wrappers is returned unchanged.

    >>> linear = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(linear)) is unwrapped(linear) is linear
    True
    """
    while (own := _attribute(module)) is not None:
        module = _inside(module, own)
    return module


def named_parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and its submodules with their names without wrappers; shared modules are yielded repeatedly.

    >>> [name for name, _ in named_parts(nn.Sequential(nn.DataParallel(nn.Linear(2, 2))))]
    ['', '0']
    """
    waiting = [(prefix, module)]  # not recursive: the teacher's update goes through all modules
    while waiting:
        prefix, module = waiting.pop()
        module = unwrapped(module)
        yield prefix, module
        for name, child in reversed(module._modules.items()):
            if child is not None:
                waiting.append((f"{prefix}.{name}" if prefix else name, child))


def plain_name(module: nn.Module, name: str) -> str:
    """Return the name of a parameter or buffer without wrappers.

    Args:
        module: module that the name is relative to.
        name: dotted name, as in `state_dict`.

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
        else:  # some wrappers do not add a prefix
            found.append(part)
            here = None if here is None else here._modules.get(part)
    return ".".join(found)


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by their names without wrappers.

    >>> sorted(plain_state(nn.DataParallel(nn.Linear(2, 2))))
    ['bias', 'weight']
    """
    return {plain_name(module, name): tensor for name, tensor in module.state_dict().items()}


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, in the same memory; other tensors are returned unchanged."""
    to_local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def load_plain_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors by their names without wrappers into a module that may be wrapped."""
    names = {plain_name(module, name): name for name in module.state_dict()}
    module.load_state_dict({names.get(name, name): tensor for name, tensor in state.items()})


def call_inside(module: nn.Module, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the module inside the wrappers.

    DDP reduces gradients only after its own `forward`, so the call goes through that. Other wrappers are bypassed:
    torch.compile compiles only `forward`, and DataParallel can only split tensors.

    Args:
        module: module, wrapped or not.
        method: name of the method.
        args: positional arguments of the method.
        kwargs: keyword arguments of the method.

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

    def restore() -> None:
        inside.pop("forward", None)
        inside.update(own)

    def forward(*args: Any, **kwargs: Any) -> Any:
        restore()  # the method may call `forward` itself
        return bound(*args, **kwargs)

    inside["forward"] = forward
    try:
        return parallel(*args, **kwargs)
    finally:
        restore()


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return the module and the modules inside its wrappers, from the outermost to the innermost."""
    layers = [module]
    while (own := _attribute(layers[-1])) is not None:
        layers.append(_inside(layers[-1], own))
    return layers


def _inside(module: nn.Module, own: str) -> nn.Module:
    inside = module._modules[own]
    assert inside is not None
    return inside


def _attribute(module: nn.Module) -> str | None:
    """Return the name of a wrapper's attribute for the module inside; None = not a wrapper."""
    parts = module._modules
    if not parts:  # most modules
        return None
    if isinstance(module, _PARALLEL):
        return "module"
    if _COMPILED in parts:
        return _COMPILED
    return _CHECKPOINTED if _CHECKPOINTED in parts else None
