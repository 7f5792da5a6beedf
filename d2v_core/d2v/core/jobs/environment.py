"""The environment of a job: versions, devices, extras, plug-ins and free disk space, as names and texts.

This module only reports; the checks of what must work are in `diagnosis`.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import torch

from d2v.core.jobs.device import pick_device
from d2v.core.jobs.kernels import kernels_report
from d2v.core.modality import modalities
from d2v.core.precision import native_precision
from d2v.core.registry import MissingExtraError
from d2v.core.train.busy import load_text

_OPTIONAL = {"tensorboard": "d2v[tensorboard]", "matplotlib": "d2v[plot]", "transformers": "d2v[hugging-face]"}
_GIB = 2**30


def environment_report(own: str) -> Iterator[tuple[str, str]]:
    """Names and texts of the environment, in the order of the report.

    Args:
        own: version of d2v.

    >>> dict(environment_report("0.1"))["d2v"].split(",")[0]
    '0.1'
    """
    yield "d2v", f"{own}, {Path(__file__).parents[2]}"
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "platform", platform.platform()
    yield "torch", f"{torch.__version__}, {_backends()}"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores"
    yield "load", load_text()
    yield "CPU", f"{torch.backends.cpu.get_cpu_capability()}, bf16 {_bf16('cpu')}"
    yield from kernels_report()
    yield from _accelerators()
    yield "device=auto", str(pick_device("auto"))
    yield from _modalities()
    for package, extra in _OPTIONAL.items():
        yield package, _version(package) or f"not installed: pip install '{extra}'"
    yield "temporary files", _free_space(_temporary())
    yield "this folder", _free_space(Path.cwd())


def _backends() -> str:
    parts = {
        "CUDA": torch.version.cuda,
        "ROCm": torch.version.hip,
        "cuDNN": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch has no types here
        "MPS": "yes" if torch.backends.mps.is_available() else None,
    }
    return ", ".join(f"{name} {value or 'no'}" for name, value in parts.items())


def _accelerators() -> Iterator[tuple[str, str]]:
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            try:
                yield f"cuda:{index}", _cuda(index)
            except RuntimeError as error:  # used exclusively by another process, or broken
                yield f"cuda:{index}", f"cannot be used: {str(error).splitlines()[0]}"
    if torch.backends.mps.is_available():
        yield "mps", f"{torch.mps.recommended_max_memory() / _GIB:.1f} GiB"


def _cuda(index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        bf16 = _bf16("cuda")
    name = torch.cuda.get_device_name(index)
    return f"{name}, {total / _GIB:.1f} GiB, {free / _GIB:.1f} free, bf16 {bf16}"


def _modalities() -> Iterator[tuple[str, str]]:
    broken = modalities.broken()
    distributions = packages_distributions()
    for name in modalities.names():
        if name in broken:
            yield name, f"broken: {broken[name]}"
            continue
        record = modalities.load(name)
        try:
            record.require_extra()
        except MissingExtraError as error:
            yield name, str(error)
            continue
        found = _versions(record.requires, distributions) or "installed, needs no other package"
        yield name, "; ".join([found, *_optional(record.optional, distributions)])


def _versions(modules: Iterable[str], distributions: Mapping[str, Sequence[str]]) -> str:
    owners = dict.fromkeys(owner for module in modules for owner in distributions.get(module, [module]))
    return ", ".join(f"{owner} {_version(owner) or 'of unknown version'}" for owner in owners)


def _optional(packages: Mapping[str, Iterable[str]], distributions: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for requirement, modules in packages.items():
        missing = [module for module in modules if find_spec(module) is None]
        if found := _versions([module for module in modules if module not in missing], distributions):
            yield found
        if missing:
            yield f"without {', '.join(missing)}: pip install '{requirement}'"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _temporary() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return None


def _free_space(folder: Path | None) -> str:
    if folder is None:
        return "no folder for temporary files is writable; set TMPDIR"
    writable = "" if os.access(folder, os.W_OK) else ", not writable"
    return f"{folder}, {shutil.disk_usage(folder).free / _GIB:.1f} GiB free{writable}"


def _bf16(device: str) -> str:
    """Whether the device computes in bf16 natively; emulated bf16 is slower than float32."""
    return "yes" if native_precision(torch.device(device)) == "bf16" else "no"
