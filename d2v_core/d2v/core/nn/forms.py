"""Modules with two forms of their computation, and the choice between them by measurement.

`kernels` chooses by rules that hold on all machines of a kind. Which of the forms here is faster depends on the
processor and on the libraries that torch was built with, so both are timed. The forms are equal except for rounding.
A module alone takes its plain form.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from d2v.core.nn.inference import inference_takes, packed_weights

Trial = tuple[Tensor, Callable[[Tensor], Tensor]]
"""A small input, and the function of it to be timed."""

LARGEST_RATIO = 0.95
"""Ratio of times below which the other form is chosen; a smaller gain may be noise."""
_PRODUCTS = 2e8  # multiplications of a trial's forward pass
_SECONDS = 0.1  # for each module, if that is enough for the fewest rounds
_ROUNDS = (3, 6)  # fewest and most; the first one is a warm-up


class TwoForms(nn.Module):
    """Base of modules with a plain form and another one.

    Attributes:
        other_form: name of the other form, the same for all modules that are switched together.
        takes_other_form: whether the module takes it, wherever it is used.
    """

    other_form: ClassVar[str]
    takes_other_form: bool = False

    @property
    def switched(self) -> bool:
        """Whether the module takes its other form now: by itself, or in the inference that is active."""
        return self.takes_other_form or inference_takes(self.other_form)

    def offers_other_form(self) -> bool:
        """Whether there is another form for these sizes, here, in the precision of the current autocast.

        Inside `inferring` there may be one that cannot be trained.
        """
        raise NotImplementedError

    def trial(self) -> Trial:
        """Return what is timed: an input of the module's sizes, small enough for some milliseconds, and a function."""
        raise NotImplementedError


def other_forms(model: nn.Module) -> dict[str, list[TwoForms]]:
    """Return the modules that have another form here, by its name.

    >>> other_forms(nn.Linear(2, 2))
    {}
    """
    found: defaultdict[str, list[TwoForms]] = defaultdict(list)
    for part in model.modules():
        if isinstance(part, TwoForms) and part.offers_other_form():
            found[part.other_form].append(part)
    return dict(found)


def take_forms(model: nn.Module, names: Collection[str]) -> list[str]:
    """Switch the modules of a model: to the forms that are named where they have them, all others to the plain form.

    Call it in the autocast of the run.

    Returns:
        The names that no module has here, although the model has such modules.

    Raises:
        ValueError: if the model has no modules with a form of a name.

    >>> take_forms(nn.Linear(2, 2), ["onednn-linear"])
    Traceback (most recent call last):
    ValueError: a Linear has no form 'onednn-linear'
    """
    check_forms(model, names)
    for part in model.modules():
        if isinstance(part, TwoForms):
            part.takes_other_form = part.other_form in names and part.offers_other_form()
    return sorted(set(names) - set(forms_taken(model)))


def check_forms(model: nn.Module, names: Collection[str]) -> None:
    """Refuse names of forms that no module of a model has on any machine.

    Raises:
        ValueError: naming the first of them, and those that it has.
    """
    known = {part.other_form for part in model.modules() if isinstance(part, TwoForms)}
    for name in names:
        if name not in known:
            has = f"; it has {', '.join(sorted(known))}" if known else ""
            raise ValueError(f"a {type(model).__name__} has no form {name!r}{has}")


def forms_taken(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the forms that modules of a model take instead of the plain ones, sorted.

    >>> forms_taken(nn.Linear(2, 2))
    ()
    """
    return tuple(sorted({p.other_form for p in model.modules() if isinstance(p, TwoForms) and p.takes_other_form}))


def measured_ratio(parts: Iterable[TwoForms]) -> float:
    """Time both forms of modules that are switched together, in turn: forward and backward, or forward in `inferring`.

    One module is timed, of the size that has the most parameters in all modules together. Call it in the autocast of
    the run. Gradients of the modules and the state of random number generators stay as they are.

    Returns:
        Time of the other form as a multiple of the plain form's.
    """
    times = _times(_typical(parts)[1])
    return times[True] / times[False]


def typical_shapes(parts: Iterable[TwoForms]) -> str:
    """Return the shapes of the parameters of the module that `measured_ratio` times, as text.

    >>> from d2v.core.nn.linear import Linear
    >>> typical_shapes([Linear(3, 2)])
    '2x3 2'
    """
    return _typical(parts)[0]


def _typical(parts: Iterable[TwoForms]) -> tuple[str, TwoForms]:
    """Shapes in words, and a module of them."""
    alike: defaultdict[str, list[TwoForms]] = defaultdict(list)
    for part in parts:
        alike[" ".join("x".join(map(str, p.shape)) for p in part.parameters())].append(part)
    shapes = max(sorted(alike), key=lambda one: len(alike[one]) * sum(p.numel() for p in alike[one][0].parameters()))
    return shapes, alike[shapes][0]


def trial_of(conv: nn.Conv1d, length: int, *, rows: int) -> Tensor:
    """Return an input `r t c` of a convolution: so many rows of a length, or fewer if the convolution is large."""
    products = conv.weight.numel() * length // conv.stride[0]
    return torch.randn(max(1, min(rows, int(_PRODUCTS / products))), length, conv.in_channels)


def _times(part: TwoForms) -> dict[bool, float]:
    """Shortest seconds of the plain form (False) and the other one."""
    before, best = part.takes_other_form, {False: float("inf"), True: float("inf")}
    inferred = packed_weights() is not None
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(not inferred):
        x, function = part.trial()
        x.requires_grad_(not inferred)
        wanted = [x, *(p for p in part.parameters() if p.requires_grad)]
        deadline = time.perf_counter() + _SECONDS
        try:
            for round_ in range(_ROUNDS[1]):
                for other in best:
                    part.takes_other_form = other
                    start = _clock()
                    y = function(x)
                    if not inferred:
                        torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)
                    if round_:
                        best[other] = min(best[other], _clock() - start)
                if round_ + 1 >= _ROUNDS[0] and time.perf_counter() > deadline:
                    break
        finally:
            part.takes_other_form = before
    return best


def _clock() -> float:
    # CPU time leaves out what other programs took. With several threads it adds up, so only the wall clock tells.
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
