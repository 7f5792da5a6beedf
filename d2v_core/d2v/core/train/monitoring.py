"""Separate monitors for the modalities of a run, because their targets are not comparable."""

import copy
from collections.abc import Iterable
from typing import Any

from d2v.core.model import StepOutput
from d2v.core.monitor import CollapseMonitor


class Monitors:
    """Copies of one monitor, one per modality; batches without a modality use the given monitor.

    Args:
        monitor: monitor with its rules, unused so far.

    >>> Monitors(CollapseMonitor()).report([], [])
    {}
    """

    def __init__(self, monitor: CollapseMonitor) -> None:
        self._new = copy.deepcopy(monitor)
        self._by_modality: dict[str | None, CollapseMonitor] = {None: monitor}

    def report(self, outputs: Iterable[StepOutput], modalities: Iterable[str | None]) -> dict[str, float]:
        """Return the metrics of an update, those of a modality as `<modality>/...`.

        Args:
            outputs: outputs of the micro-batches; those without predictions, targets or mask are skipped.
            modalities: modalities of the micro-batches, the same on all ranks.
        """
        for output, modality in zip(outputs, modalities, strict=True):
            if output.predictions is not None and output.targets is not None and output.mask is not None:
                self._of(modality).update(output.predictions, output.targets, output.mask)
        found: dict[str, float] = {}
        for modality, monitor in self._by_modality.items():
            prefix = "" if modality is None else f"{modality}/"
            found |= {f"{prefix}{name}": value for name, value in monitor.report().items()}
        return found

    def check(self, update: int) -> None:
        """Warn and stop by the rules of every monitor; see `CollapseMonitor.check`."""
        for monitor in self._by_modality.values():
            monitor.check(update)

    def state_dict(self) -> dict[str, Any]:
        """State of the monitors by modality; "" = batches without modality."""
        return {modality or "": monitor.state_dict() for modality, monitor in self._by_modality.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        for modality, one in state.items():
            self._of(modality or None).load_state_dict(one)

    def _of(self, modality: str | None) -> CollapseMonitor:
        if modality not in self._by_modality:
            self._by_modality[modality] = copy.deepcopy(self._new)
        return self._by_modality[modality]
