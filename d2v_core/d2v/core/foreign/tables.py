"""Key tables: rules for all tensors of a layout, checked as a whole; independent of files."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from d2v.core.foreign.rules import Rule, Shape
from d2v.core.state_dict import complaint, misfits

Tensors = Mapping[str, Tensor]


class KeyTable:
    """Rules for all tensors of a layout.

    Args:
        rules: each name may occur once on each side.

    Raises:
        ValueError: if a name occurs twice.

    >>> import torch
    >>> from d2v.core.foreign.rules import Constant, Rename
    >>> table = KeyTable([Rename("a", "x"), Constant("version")])
    >>> table.to_ours({"a": torch.zeros(1), "version": torch.ones(1)})
    {'x': tensor([0.])}
    >>> table.to_theirs({"x": torch.zeros(1)})
    {'a': tensor([0.])}
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.their_names = frozenset(name for rule in self.rules for name in rule.theirs)
        for side in ([n for r in self.rules for n in r.theirs], [n for r in self.rules for n in r.ours]):
            double = sorted({name for name in side if side.count(name) > 1}) if len(set(side)) < len(side) else []
            if double:
                raise ValueError(f"the key table names {', '.join(double)} twice")

    def to_ours(self, tensors: Tensors, *, partial: bool = False) -> dict[str, Tensor]:
        """Convert third-party tensors to this package's names.

        Args:
            tensors: by third-party name.
            partial: skip rules without any of their tensors (for gradients and teachers).

        Raises:
            ValueError: if tensors are missing or unexpected; names all of them.
        """
        missing = [] if partial else [n for r in self.rules for n in r.theirs if n not in tensors and r.ours]
        unexpected = [name for name in tensors if name not in self.their_names]
        if missing or unexpected:
            raise ValueError(complaint({"missing": missing, "unexpected": unexpected}))
        return dict(self._apply(tensors, forward=True))

    def to_theirs(self, tensors: Tensors) -> dict[str, Tensor]:
        """Convert this package's tensors to third-party names; rules without any of their tensors are skipped.

        Raises:
            ValueError: if a tensor has no rule.
        """
        known = {name for rule in self.rules for name in rule.ours}
        unexpected = [name for name in tensors if name not in known]
        if unexpected:
            raise ValueError(complaint({"without a rule": unexpected}))
        return dict(self._apply(tensors, forward=False))

    def misfits(self, shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> dict[str, list[str]]:
        """Problems of converting third-party tensors: all names, by the kind of problem.

        Args:
            shapes: by third-party name.
            expected: shapes in this package; the tensors of rules for other names may be missing.
        """
        wanted = [rule for rule in self.rules if any(name in expected for name in rule.ours)]
        missing = [name for rule in wanted for name in rule.theirs if name not in shapes]
        given: dict[str, Shape] = {}
        reshaped: list[str] = []
        for rule in self.rules:
            if all(name in shapes for name in rule.theirs):
                theirs = [shapes[name] for name in rule.theirs]
                try:
                    given |= zip(rule.ours, rule.our_shapes(theirs), strict=True)
                except ValueError as error:
                    reshaped.append(f"{', '.join(rule.theirs)} {', '.join(map(str, theirs))} {error}")
        ours = {name for rule in self.rules for name in rule.ours}
        return {
            "missing": missing + [name for name in expected if name not in ours],
            "unexpected": [name for name in shapes if name not in self.their_names]
            + [name for name in given if name not in expected],
            "of another shape": reshaped + misfits(expected, given)["of another shape"],
        }

    def _apply(self, tensors: Tensors, *, forward: bool) -> Iterator[tuple[str, Tensor]]:
        for rule in self.rules:
            source, target = (rule.theirs, rule.ours) if forward else (rule.ours, rule.theirs)
            present = [name in tensors for name in source]
            if not source or not any(present):
                continue
            if not all(present):
                absent = [name for name in source if name not in tensors]
                raise ValueError(complaint({"missing": absent}))
            run = rule.to_ours if forward else rule.to_theirs
            yield from zip(target, run([tensors[name] for name in source]), strict=False)
