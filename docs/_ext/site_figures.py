"""The figures of the site, drawn by the pieces that they explain, on images included in `d2v.vision`."""

from collections.abc import Callable, Iterator, Mapping

from site_drawing import Drawn
from site_mask_figures import fraction_and_length, masks, multimask, spans, tokens
from site_network_figures import reach, reaches, schedules, step, target_colours, targets, teacher

from d2v.core.plots import svg

FIGURES: Mapping[str, Callable[[], Drawn]] = {
    "step": step,
    "masks": masks,
    "fraction_and_length": fraction_and_length,
    "spans": spans,
    "multimask": multimask,
    "tokens": tokens,
    "teacher": teacher,
    "schedules": schedules,
    "targets": targets,
    "target_colours": target_colours,
    "reach": reach,
    "reaches": reaches,
}


def figures() -> Iterator[tuple[str, str]]:
    """Paths below `_generated`, with the HTML of each figure."""
    for name, draw in FIGURES.items():
        figure, label = draw()
        yield f"{name}.svg", f'<figure class="drawn">\n{svg(figure, label=label)}</figure>\n'
