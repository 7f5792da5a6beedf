"""Which forms of its computation a model takes: those asked for, those recorded in the run, or the faster ones here.

Measurements are kept in the cache folder, so a machine decides once for each size of model. All processes of a run
take what the first one decides. In inference, each decides alone.
"""

import json
import logging
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from d2v._cache import cache_folder
from d2v.core.files import ConfigError
from d2v.core.files.atomic import write_text
from d2v.core.nn import ConvDecoder
from d2v.core.nn.forms import (
    LARGEST_RATIO,
    check_forms,
    forms_taken,
    measured_ratio,
    other_forms,
    take_forms,
    typical_shapes,
)
from d2v.core.nn.inference import PackedWeights, inferring, packed_weights
from d2v.core.nn.linear import Linear
from d2v.core.precision import Precision, autocast, native_precision
from d2v.core.recipes.sections import AUTO, PLAIN, kernel_names
from d2v.core.train.ranks import world

_logger = logging.getLogger(__name__)
_FILE = "kernels.json"
_DIM = 768  # the base size
_known: dict[Path, dict[str, float]] = {}  # for callers that ask at every batch, and where nothing can be written


def use_kernels(
    model: nn.Module, asked: tuple[str, ...], *, recorded: tuple[str, ...] | None, precision: Precision
) -> None:
    """Switch the modules of a model to the forms that a run takes.

    Args:
        model: on its device, before it is wrapped or sharded.
        asked: `train.kernels`.
        recorded: forms that the resumed run started with, which `auto` keeps; None = the run is new.
        precision: of the run.

    Raises:
        ConfigError: if the model has no form of a name that was asked.
    """
    device = next(model.parameters()).device
    with autocast(precision, device):
        names = (recorded if recorded is not None else _decided(model, precision)) if asked == AUTO else asked
        names = () if names == PLAIN else names
        try:
            missing = take_forms(model, names)
        except ValueError as error:
            raise ConfigError(f"train.kernels: {error}, or auto or plain") from error
    for name in missing:
        _logger.warning(
            "train.kernels=%s is not available in %s on this machine: the plain form is used", name, precision
        )


class InferenceKernels:
    """Forms of computation for features and predictions, and the weights that they keep packed.

    Args:
        asked: auto = the faster ones, plain = none of them, or names; as `train.kernels`.

    Raises:
        ConfigError: if this is neither.

    >>> kernels, model = InferenceKernels("plain"), nn.Linear(2, 2)
    >>> with kernels.of(model, "fp32"):
    ...     model(torch.ones(1, 2)).requires_grad
    False
    """

    def __init__(self, asked: str | list[str] | tuple[str, ...] = "auto") -> None:
        try:
            self.asked = kernel_names(asked)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self._packed = PackedWeights()

    def names(self, model: nn.Module, precision: Precision) -> tuple[str, ...]:
        """Return the value of `asked` that makes a model take the forms that it takes here.

        Raises:
            ConfigError: if the model has no form of a name that was asked.
        """
        if self._plain:
            return PLAIN
        with inferring(self._packed), autocast(precision, next(model.parameters()).device):
            if self.asked == AUTO:
                return faster(measured(model, precision)) or PLAIN
            try:
                check_forms(model, self.asked)
            except ValueError as error:
                raise ConfigError(f"kernels: {error}, or auto or plain") from error
            return tuple(name for name in self.asked if name in other_forms(model)) or PLAIN

    @contextmanager
    def of(self, model: nn.Module, precision: Precision) -> Iterator[None]:
        """Compute with these forms inside, without gradients; the model does not change.

        Raises:
            ConfigError: if the model has no form of a name that was asked.
        """
        names = self.names(model, precision)
        on_cpu = next(model.parameters()).device.type == "cpu"
        with torch.no_grad() if self._plain or not on_cpu else inferring(self._packed, set(names) - set(PLAIN)):
            yield

    @property
    def _plain(self) -> bool:
        return self.asked == PLAIN or (self.asked == AUTO and _plain_by_environment())


def kernels_of(model: nn.Module) -> tuple[str, ...]:
    """Return the value of `train.kernels` that makes a model take the forms that it takes now."""
    return forms_taken(model) or PLAIN


def measured(model: nn.Module, precision: Precision) -> dict[str, float]:
    """Return the times of a model's other forms as multiples of those of the plain ones, from the cache or measured.

    Call it in the autocast of the run, for inference inside `inferring`. With `D2V_KERNELS=plain` in the environment,
    nothing is measured.
    """
    if _plain_by_environment():
        return {}
    path = cache_folder() / _FILE
    inferred = packed_weights() is not None
    use = f"{precision}, inference" if inferred else precision
    if path not in _known:
        _known[path] = _read(path)
    known, found, new = _known[path], dict[str, float](), dict[str, float]()
    for name, parts in other_forms(model).items():
        key = f"{_machine()}, {use}: {name}, {typical_shapes(parts)}"
        if key not in known:
            try:
                known[key] = new[key] = measured_ratio(parts)
            except RuntimeError as error:  # not in this precision, or by this release of torch
                field = "kernels" if inferred else "train.kernels"
                _logger.warning("%s=%s cannot be used here: %s", field, name, str(error).splitlines()[0])
                known[key] = math.inf
        if known[key] < math.inf:
            found[name] = known[key]
    if new:
        try:
            write_text(path, json.dumps(_read(path) | new, indent=1) + "\n")
        except OSError as error:
            _logger.warning("the choice of kernels is not kept for the next run: %s", error)
    return found


def faster(ratios: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of forms to take, from the output of `measured`, sorted.

    >>> faster({"onednn-linear": 0.5, "channels-last-decoder": 0.99})
    ('onednn-linear',)
    """
    return tuple(sorted(name for name, ratio in ratios.items() if ratio < LARGEST_RATIO))


def kernels_report() -> Iterator[tuple[str, str]]:
    """Yield a line for each precision that this CPU computes in: which forms are faster, for parts of the base size."""
    native = native_precision(torch.device("cpu"))
    precisions: tuple[Precision, ...] = ("fp32",) if native == "fp32" else ("fp32", native)
    for precision in precisions:
        yield f"kernels, {precision}", _in_words(_ratios_of_base_size(precision))


def _ratios_of_base_size(precision: Precision) -> dict[str, float]:
    with torch.random.fork_rng(devices=[]), autocast(precision, torch.device("cpu")):
        decoder = ConvDecoder(_DIM, decoder_dim=_DIM // 2, num_layers=1, kernel_size=7, groups=16)
        return measured(nn.ModuleList([Linear(_DIM, 4 * _DIM), Linear(4 * _DIM, _DIM), decoder]), precision)


def _in_words(ratios: Mapping[str, float]) -> str:
    taken = faster(ratios)
    forms = [f"{name} {ratio:.2f}" for name, ratio in sorted(ratios.items(), key=lambda one: one[0] not in taken)]
    return f"{', '.join(taken) or 'plain'} (time / plain: {', '.join(forms)})" if forms else "plain"


def _decided(model: nn.Module, precision: Precision) -> tuple[str, ...]:
    """Names of the faster forms, the same on all ranks."""
    rank, workers = world()
    found = [faster(measured(model, precision)) if rank == 0 else ()]
    if workers > 1:
        dist.broadcast_object_list(found)
    return found[0]


def _plain_by_environment() -> bool:
    return os.environ.get("D2V_KERNELS") == "plain"


def _machine() -> str:
    return f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, float)} if isinstance(found, dict) else {}
