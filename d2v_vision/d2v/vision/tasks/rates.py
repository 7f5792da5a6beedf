"""Drop-path rates of fine-tuning.

Numbers only: they go into `ContextConfig.drop_path_rate` and `EncoderConfig.drop_path_rate`.
"""

from d2v.core.validators import check, probability

Range = tuple[float, float]


def fine_tuning_drop_path(rate: float, *, context_depth: int, depth: int) -> tuple[Range, Range]:
    """Rates of the first and the last block, of the context (prenet) blocks and of the shared ones, as published.

    r = linspace(0, rate, depth) is made for the shared blocks alone, and then dealt out: with P context blocks, these
    run from r[0] to r[P - 1] and the shared ones from r[P] to r[depth - 1].

    Args:
        rate: of the last block, in [0, 1).
        context_depth: P, context blocks in the adapter.
        depth: shared blocks, more than P.

    Raises:
        ValueError: if a number is out of its range.

    >>> (first, last), shared = fine_tuning_drop_path(0.1, context_depth=2, depth=10)
    >>> round(first, 4), round(last, 4), [round(rate, 4) for rate in shared]
    (0.0, 0.0111, [0.0222, 0.1])
    """
    check(probability, rate=rate)
    if not 0 <= context_depth < depth:
        raise ValueError(
            f"{context_depth} context blocks need more shared blocks than {depth} for the published drop-path rates"
        )
    step = rate / max(1, depth - 1)
    return (0.0, step * max(0, context_depth - 1)), (step * context_depth, rate if depth > 1 else 0.0)
