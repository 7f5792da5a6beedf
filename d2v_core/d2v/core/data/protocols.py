"""What core asks of a modality's data."""

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen

from d2v.core.data.loader import Loader


@frozen(kw_only=True)
class Splits:
    """Parts of a data set by their use."""

    train: str
    choose: str | None = None
    test: str | None = None


class DataConfig(Protocol):
    """Data."""

    path: str

    def build(
        self,
        split: str | None,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
        classes: Sequence[str] | None = None,
    ) -> Loader[Any]: ...

    def splits(self) -> Splits: ...

    def classes(self) -> tuple[str, ...]: ...

    def match(self, adapter: Any) -> None: ...
