"""Figures of masks and of several masks per sample, drawn by the maskers and the batcher."""

import torch
from site_drawing import WIDTH, Drawn, image_grid, sample_images, show

from d2v.core import BlockMasker, Draw, InverseBlockMasker, MultimaskBatcher, RandomMasker, SpanMasker
from d2v.core.masks import Masker
from d2v.core.plots import hide
from d2v.core.plots.style import COLOURS, drawing

GRID = (14, 14)


def masks() -> Drawn:
    """Four maskers side by side."""
    maskers: dict[str, Masker] = {
        "inverse\nblocks": InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1),
        "blocks": InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1, inverse=False),
        "rectangles\n(1.0)": BlockMasker(num_masked=147, min_per_block=16),
        "single\npatches": RandomMasker(mask_prob=0.75),
    }
    images = sample_images()[:5]
    draw = Draw(seed=3, update=0, ids=torch.arange(len(images)))
    rows = {
        name: [
            hide(image, row.view(GRID)) for image, row in zip(images, masker(5, GRID, draw=draw).hidden, strict=True)
        ]
        for name, masker in maskers.items()
    }
    return (
        image_grid({"image": list(images)} | rows),
        "Five images under four maskers that hide three quarters of the patches: inverse blocks leave connected "
        "regions visible, blocks and rectangles the patches between them, single patches scattered patches.",
    )


def fraction_and_length() -> Drawn:
    """Effect of the fraction and the length of inverse blocks."""
    image = sample_images()[0]
    lengths = (1, 2, 3, 5, 7)
    rows = {}
    for fraction in (0.5, 0.75, 0.9):
        cells = []
        for length in lengths:
            masker = InverseBlockMasker(mask_prob=fraction, mask_length=length, mask_prob_adjust=0.1 * (length > 1))
            mask = masker(1, GRID, draw=Draw(seed=1, update=0, ids=torch.arange(1)))
            cells.append(hide(image, mask.hidden[0].view(GRID)))
        rows[f"mask_prob\n{fraction}"] = cells
    return (
        image_grid(rows, columns=[f"mask_length\n{lengths[0]}", *map(str, lengths[1:])]),
        "One image under inverse block masks: from top to bottom more patches are hidden, from left to right the "
        "visible blocks are larger and fewer.",
    )


def spans() -> Drawn:
    """Masks on a line."""
    maskers: dict[str, Masker] = {
        "spans of 10 (1.0 speech)": SpanMasker(mask_prob=0.65, mask_length=10),
        "blocks of 5 (2.0 speech)": InverseBlockMasker(
            mask_prob=0.5, mask_length=5, mask_prob_adjust=0.05, inverse=False
        ),
        "single positions (2.0 text)": RandomMasker(mask_prob=0.48),
    }
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.6), layout="constrained")
        axes = figure.subplots(len(maskers), 1, sharex=True)
        for one, (name, masker) in zip(axes, maskers.items(), strict=True):
            hidden = masker(1, (200,), draw=Draw(seed=0, update=0, ids=torch.arange(1))).hidden[0]
            one.bar(hidden.nonzero()[:, 0].numpy() + 0.5, 1, width=1, color=COLOURS[0], linewidth=0)
            one.set(ylim=(0, 1), yticks=[], xlim=(0, 200))
            one.set_title(f"{name}: {100 * hidden.float().mean().item():.0f} % hidden", fontsize=8)
            one.grid(visible=False)
        axes[-1].set_xlabel("position")
    return figure, "Hidden positions of a line of 200 under three maskers: spans, blocks, and single positions."


def multimask() -> Drawn:
    """An image, its views, and the input of the student."""
    images = 0.15 + 0.85 * sample_images()[1:2]  # keeps black patches visible on a dark page
    side, views = 7, 4
    masker = InverseBlockMasker(mask_prob=0.6, mask_length=2, mask_prob_adjust=0.07)
    mask = masker(1, (4, 4), num_masks=views, draw=Draw(seed=2, update=0, ids=torch.arange(1)))
    patches = images.unfold(2, side, side).unfold(3, side, side).flatten(2, 3).movedim(1, 2)  # b t c p q
    seen = MultimaskBatcher(mask).visible(patches)
    gap = torch.full((seen.shape[1], 1, side, 1), float("nan"))
    packed = [torch.cat([one for pair in zip(view, gap, strict=True) for one in pair][:-1], 2) for view in seen]
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 2.6))[0]
        one = left.subplots()
        show(one, images[0])
        one.set_title("a sample", fontsize=8)
        cells = right.subplots(views, 2, width_ratios=(1, 4))
        for row, hidden, strip in zip(cells, mask.hidden, packed, strict=True):
            show(row[0], hide(images[0], hidden.view(4, 4)))
            show(row[1], strip)
        cells[0, 0].set_title("its views", fontsize=8)
        cells[0, 1].set_title("input of the student", fontsize=8)
    return figure, "An image, four masked views of it, and next to each view its six visible patches in a row."


def tokens() -> Drawn:
    """Tokens per view by the number of masks."""
    counts = [1, 2, 4, 8, 12, 16]
    t, v = 196, 39
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.0), layout="constrained")
        axes = figure.subplots()
        places = range(len(counts))
        axes.bar(places, [v] * len(counts), color=COLOURS[0], width=0.6, label="student")
        axes.bar(places, [t / m for m in counts], bottom=v, color=COLOURS[1], width=0.6, label="teacher")
        axes.set_xticks(list(places), [str(m) for m in counts])
        axes.set(xlabel="M, masks per sample", ylabel="tokens per view")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper right")
    return (
        figure,
        "Bars of encoded tokens per view: the student's stay at 39, the teacher's fall from 196 to 12 at M = 16.",
    )
