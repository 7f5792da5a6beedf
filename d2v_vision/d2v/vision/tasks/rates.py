"""Drop-path rates for fine-tuning, as numbers for `ContextConfig.drop_path_rate` and `EncoderConfig.drop_path_rate`."""

from d2v.core.validators import check, probability

Range = tuple[float, float]


def fine_tuning_drop_path(rate: float, *, context_depth: int, depth: int) -> tuple[Range, Range]:
    """Return the published rates of the first and last block, for the context (prenet) blocks and the shared blocks.

    r = linspace(0, rate, depth) counts only the shared blocks, but its values are distributed over all: the P context
    blocks get r[0] to r[P - 1], and the shared blocks r[P] to r[depth - 1].

    Args:
        rate: rate of the last block, in [0, 1).
        context_depth: P, number of context blocks in the adapter.
        depth: number of shared blocks, more than P.

    Raises:
        ValueError: if a number is out of its range.

    >>> (first, last), shared = fine_tuning_drop_path(0.1, context_depth=2, depth=10)
    >>> round(first, 4), round(last, 4), [round(rate, 4) for rate in shared]
    (0.0, 0.0111, [0.0222, 0.1])
    """
    check(probability, rate=rate)
    if not 0 <= context_depth < depth:
        raise ValueError(
            f"{context_depth} context blocks need more than {depth} shared blocks for the published drop-path rates"
        )
    step = rate / max(1, depth - 1)
    return (0.0, step * max(0, context_depth - 1)), (step * context_depth, rate if depth > 1 else 0.0)
