"""Records of the samples that a model was trained or evaluated on, from the batches of a job."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from d2v.core.data import Batches, DataConfig, Identity, Mixture, Seen, Splits, identity_of
from d2v.core.data.seen import How, said_of_seen
from d2v.core.description import Description
from d2v.core.files.folder import read_description
from d2v.core.train.run_folder import newest_step


def seen_in(how: How, batches: Batches, splits: Mapping[str, str]) -> tuple[Seen, ...]:
    """Records of the samples in batches; empty if the batches do not identify their samples.

    Args:
        how: how the model uses them.
        batches: of one modality, or a mixture.
        splits: names of the splits, by modality.
    """
    sources = batches.sources if isinstance(batches, Mixture) else dict.fromkeys(splits, batches)
    found = {name: identity_of(source) for name, source in sources.items()}
    return tuple(
        Seen(how=how, modality=name, split=splits[name], identity=one) for name, one in found.items() if one is not None
    )


def seen_before(out: str) -> tuple[Seen, ...]:
    """Records of the samples that the model of a resumed run has seen so far."""
    described = description_before(out)
    return () if described is None else described.seen


def description_before(out: str) -> Description | None:
    """Description of the newest checkpoint of a run that is resumed; None if there is none."""
    step = newest_step(out)
    return None if step is None else read_description(Path(out, "checkpoints", f"step-{step}"))


def added(before: Sequence[Seen], now: Iterable[Seen]) -> tuple[Seen, ...]:
    """Records without duplicates."""
    return (*before, *(one for one in now if one not in before))


def part_to_report_on(data: DataConfig, splits: Splits, description: Description) -> tuple[str, list[str]]:
    """The split that a fine-tuned model is evaluated on by default, and notes on this choice.

    For a folder without splits, this is the held-out part if the model was trained on the same data, else all samples.
    """
    part = splits.test or splits.val or splits.train
    if splits.whole is None:
        return part, []
    met = [one.identity for one in description.seen if one.how in ("finetune", "choose")]
    whole = identity_of(data.build(splits.whole, batch_size=1))
    if not met:
        return splits.whole, ["the model has no record of the samples that it was trained on: all are reported on"]
    if whole is None or any(_may_share(whole, one) for one in met):
        kept = [one for one in description.seen if one.how == "report"]
        return part, [] if whole is None else said_of_seen(whole, splits.whole, kept)
    return splits.whole, ["the model was trained on none of the samples: all are reported on"]


def _may_share(one: Identity, other: Identity) -> bool:
    shared = one.shared(other)
    return shared is None or shared > 0
