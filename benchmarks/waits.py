"""How often an update waits for the device, and where.

A wait is a moment at which the program cannot go on before the device has finished what it was given: it reads a number
from the device, asks for a shape that depends on values there, or copies without `non_blocking`. Each row is the second
update of `fit` on a small model of the published composition, with two micro-batches, one of which is padded.

On a CUDA device torch reports the waits (`torch.cuda.set_sync_debug_mode`). Without one, a device is simulated: its
tensors compute on the CPU but count as another device, so that every crossing is seen. The simulation does not know
pinned memory, kernels that only a GPU has, or what torch waits for inside DDP and FSDP.

Example: `python benchmarks/waits.py`, on a GPU `python benchmarks/waits.py --device cuda`.
"""

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import attrs
import torch
from formulations import Case
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

import d2v
from d2v.audio import CTCModel, WaveformAdapterConfig
from d2v.core import Batch, BlockMasker, SpanMasker
from d2v.core.loss import RegressionLoss
from d2v.core.model import Data2VecConfig, MaskedHeadConfig
from d2v.core.train import MemorySource, PublishedAdamW, fit, parameter_groups

_ROOTS = tuple(f"{root}{os.sep}" for root in d2v.__path__)
SIMULATED = torch.device("meta")  # nothing else in a training uses it
_COUNTED = 2  # update
_READS_VALUES = {"_ctc_loss", "_linalg_eigh", "multinomial"}  # of GPU tensors, without a tag of torch that says so
_FORMER: dict[str, dict[str, Any]] = {
    "vision": {"mask_token": True},
    "audio": {"mask_token": True, "zero_padding": True, "alibi": None},
    "text": {"mask_id": 3, "zero_padding": True, "alibi": None},
}
Made = tuple[nn.Module, list[Batch]]
_FORMER_MASKERS = {
    "vision": BlockMasker(num_masked=8, min_per_block=2),
    "audio": SpanMasker(mask_prob=0.65, mask_length=4),
    "text": SpanMasker(mask_prob=0.35, mask_length=4, min_masks=0, equal_counts=False, reach_end=True),
}


class _There(Tensor):
    """A tensor of the simulated device; `here` holds its values on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "_There":
        made: _There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # torch does not declare it
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=SIMULATED,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the simulated device is used after the simulation")


class _Conversions(TorchFunctionMode):
    """Makes copies of `torch.tensor(values, device=...)` and `tolist`, as they are for a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None and torch.device(kwargs["device"]) == SIMULATED:
            del kwargs["device"]
            return torch.tensor(*args, **kwargs).to(SIMULATED)
        if func is Tensor.tolist and isinstance(args[0], _There):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


class Simulation(TorchDispatchMode):
    """A device of its own, `torch.device("meta")`, that counts the waits of the program for it.

    >>> with Simulation() as device:
    ...     x = torch.ones(3).to("meta", non_blocking=True)
    ...     total = float(x.sum())
    >>> total, len(device.waits)
    (3.0, 1)
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """Places of the waits so far: the innermost line of the library."""
        self._conversions = _Conversions()

    def __enter__(self) -> "Simulation":
        self._conversions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._conversions.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = any(isinstance(x, _There) for x in tensors)
        to = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if not there and to != SIMULATED:
            return func(*args, **kwargs)
        if _waits(func, tensors, args, kwargs, to):
            self.waits.append(_place(sys._getframe(1)))
        inner_args, inner_kwargs = tree_map_only(_There, lambda x: x.here, (args, kwargs))
        if to is not None:
            inner_kwargs["device"] = torch.device("cpu")
        out = func(*inner_args, **inner_kwargs)
        leaves = there and to is not None and to != SIMULATED
        stays = func is torch.ops.aten.copy_.default and not isinstance(args[0], _There)
        if leaves or stays:
            return out
        return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, _There, out))


def _waits(func: Any, tensors: Sequence[Tensor], args: Any, kwargs: Mapping[str, Any], to: torch.device | None) -> bool:
    """Whether a GPU would be waited for.

    Raises:
        RuntimeError: if a GPU would refuse the operation, because a tensor is on the CPU.
    """
    name = func.overloadpacket.__name__
    crosses = len({isinstance(x, _There) for x in tensors if x.dim() or name in ("copy_", "_to_copy")}) > 1
    if name == "copy_":
        return crosses and not kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
    if name == "_to_copy":
        moves = to is not None and (to == SIMULATED) != isinstance(tensors[0], _There)
        return moves and not kwargs.get("non_blocking")
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        picked = [one for one in args[1] if one is not None]
        return crosses or any(one.dtype == torch.bool for one in picked)
    if crosses:
        raise RuntimeError(f"{name} of tensors on two devices at {_place(sys._getframe(2))}")
    depends = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
    return bool(depends) or name in _READS_VALUES


def _place(frame: FrameType | None) -> str:
    """Return the innermost line of the library, or of all code, among the callers."""
    innermost = frame
    while frame is not None and not frame.f_code.co_filename.startswith(_ROOTS):
        frame = frame.f_back
    found = frame or innermost
    assert found is not None
    path = found.f_code.co_filename
    for root in _ROOTS:
        path = path.replace(root, "d2v/")
    return f"{path}:{found.f_lineno}"


@contextmanager
def counted(device: torch.device) -> Iterator[list[str]]:
    """Yield the growing list of the places where the program waits for a device: a CUDA device, or `SIMULATED`."""
    if device == SIMULATED:
        with Simulation() as simulation:
            yield simulation.waits
        return
    waits: list[str] = []

    def heard(message: Warning | str, *_: object) -> None:
        if "synchronizing" in str(message):
            waits.append(_place(sys._getframe(1)))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = heard  # type: ignore[assignment]  # a function of the same arguments
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")


def narrow(config: Data2VecConfig) -> Data2VecConfig:
    """Return the model with few channels in the convolutions of a waveform, which take most of the time."""
    adapters = {
        name: attrs.evolve(one, conv_layers=tuple((16, kernel, stride) for _, kernel, stride in one.conv_layers))
        if isinstance(one, WaveformAdapterConfig)
        else one
        for name, one in config.student.adapters.items()
    }
    return attrs.evolve(config, student=attrs.evolve(config.student, adapters=adapters))


def former(config: Data2VecConfig) -> Data2VecConfig:
    """Return the composition of 1.0 in the size of a model of 2.0: hidden positions are kept, and one mask a sample."""
    ((modality, adapter),) = config.student.adapters.items()
    fields = attrs.fields_dict(type(adapter))
    own = {name: value for name, value in _FORMER[modality].items() if name in fields}
    return attrs.evolve(
        config,
        student=attrs.evolve(config.student, adapters={modality: attrs.evolve(adapter, **own)}, visible_only=False),
        predictors={modality: MaskedHeadConfig()},
        maskers={modality: _FORMER_MASKERS[modality]},
        teacher=attrs.evolve(config.teacher, leave_out=()),
        loss=RegressionLoss(beta=1.0),
        num_masks=1,
        cls_weight=0.0,
    )


def padded(case: Case, source: Tensor) -> Batch:
    """Return a batch in which all samples but the first are shorter than the first."""
    ids, shorter = torch.arange(len(source)), int(0.8 * source.shape[1])
    if case.modality == "audio":
        padding = torch.zeros_like(source, dtype=torch.bool)
        padding[1:, shorter:] = True
        return Batch(source=source, padding=padding, ids=ids)
    if case.modality == "text":
        source = source.clone()
        source[1:, shorter:] = 1
    return Batch(source=source, ids=ids)


def pretraining(recipe: str, change: Callable[[Data2VecConfig], Data2VecConfig]) -> Made:
    """Return a small model of a recipe and two batches, one of which is padded."""
    case = Case.of(recipe, toy=True)
    batches = [padded(case, case.samples(3)), Batch(source=case.samples(3), ids=torch.arange(3, 6))]
    return change(narrow(case.config)).build(), batches


def recognition() -> Made:
    """Return a recogniser on a small encoder of speech, and the same batches with transcripts."""
    case = Case.of("audio/base", toy=True)
    encoder = attrs.evolve(narrow(case.config).student, visible_only=False)
    batches = pretraining("audio/base", former)[1]
    labels = {"labels": torch.tensor([[4, 5, 5], [6, 2, 0], [2, 0, 0]]), "label_lengths": torch.tensor([3, 2, 1])}
    model = CTCModel(
        encoder.build(),
        num_symbols=8,
        embed_dim=encoder.encoder.embed_dim,
        specials=(2,),
        masker=SpanMasker(mask_prob=0.5, mask_length=3),
    )
    return model, [dataclasses.replace(batch, **labels) for batch in batches]


CASES: dict[str, Callable[[], Made]] = {
    f"{name}, {version}": partial(pretraining, name, change)
    for name in ("vision/base", "audio/base", "text/base")
    for version, change in (("2.0", lambda config: config), ("1.0", former))
} | {"audio/base, CTC": recognition}


class _Marks:
    """Hook of `fit` that notes how many waits there were at the end of each update."""

    def __init__(self, waits: Sequence[str]) -> None:
        self.waits = waits
        self.ends: list[int] = []

    def on_step_end(self, step: int) -> None:
        self.ends.append(len(self.waits))


def waits_of(name: str, device: torch.device) -> list[str]:
    """Return the places of the waits in an update of a case."""
    torch.manual_seed(0)
    made, batches = CASES[name]()
    with counted(device) as waits:
        model = made.to(device)
        marks = _Marks(waits)
        fit(
            model,
            MemorySource(batches, seed=None),
            optimizer=PublishedAdamW(parameter_groups(model, weight_decay=0.05, decay="all"), lr=1e-4),
            schedule=lambda _: 1e-4,
            max_steps=_COUNTED + 1,  # the last update writes metrics
            accumulate=2,
            clip=1.0,
            log_every=100,
            hooks=[marks],
        )
        return waits[marks.ends[_COUNTED - 2] : marks.ends[_COUNTED - 1]]


def main() -> None:
    """Count every case and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["simulated", "cuda"], default="simulated")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; leave --device out to simulate one")
    device = torch.device("cuda") if args.device == "cuda" else SIMULATED
    for name in CASES:
        waits = waits_of(name, device)
        if args.json:
            print(json.dumps({"benchmark": "waits", "case": name, "device": args.device, "waits": waits}))
        else:
            print(f"{name:18} {len(waits):3}  {', '.join(dict.fromkeys(waits))}", flush=True)


if __name__ == "__main__":
    main()
