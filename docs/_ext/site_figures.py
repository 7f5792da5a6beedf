"""The figures of the site, drawn by the pieces that they explain; pictures are those that ship with `d2v.vision`.

Each function draws one figure; `figures` gives them as HTML. A small model is trained for the few that show features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from site_model import chosen, trained
from torch import Tensor, nn

from d2v.core import (
    BlockMasker,
    ConvDecoder,
    Draw,
    EMASchedule,
    EMATeacher,
    InverseBlockMasker,
    MultimaskBatcher,
    RandomMasker,
    SpanMasker,
)
from d2v.core.masks import Masker
from d2v.core.plots import hide, svg
from d2v.core.plots.style import COLOURS, DASHES, drawing
from d2v.core.recipes import recipe_values
from d2v.vision.builtin import fashion_mnist

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.6  # inches; at the width of a phone the letters are still 8 points
GRID = (14, 14)
PUBLISHED = ("vision/base", "vision/large", "vision/huge14", "vision/huge16")

Drawn = tuple["Figure", str]  # and what it shows, for those who cannot see it


def step() -> Drawn:
    """One training step."""
    look = trained()
    guesses = torch.stack(look.colours(look.predictions))
    shown = guesses.where(look.mask.hidden.view(-1, 1, 4, 4), torch.nan)
    rows = {
        "picture": list(look.images),
        "teacher's\ntargets": look.colours(look.targets),
        "what the\nstudent sees": look.views(),
        "student's\npredictions": list(shown),
    }
    return (
        _gallery(rows),
        "Six pictures of clothes; the teacher's features of all their patches as colours; the pictures with most patches "
        "hidden; and the student's predictions at the hidden places, in the same colours.",
    )


def masks() -> Drawn:
    """Four maskers side by side."""
    maskers: dict[str, Masker] = {
        "inverse\nblocks": InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1),
        "blocks": InverseBlockMasker(mask_prob=0.75, mask_length=3, mask_prob_adjust=0.1, inverse=False),
        "rectangles\n(1.0)": BlockMasker(num_masked=147, min_per_block=16),
        "one by one": RandomMasker(mask_prob=0.75),
    }
    images = _pictures()[:5]
    draw = Draw(seed=3, update=0, ids=torch.arange(len(images)))
    rows = {
        name: [
            hide(image, row.view(GRID)) for image, row in zip(images, masker(5, GRID, draw=draw).hidden, strict=True)
        ]
        for name, masker in maskers.items()
    }
    return (
        _gallery({"picture": list(images)} | rows),
        "Five pictures under four maskers that hide three quarters of the patches: inverse blocks leave connected parts "
        "visible, blocks and rectangles leave what lies between them, single patches leave a sprinkling.",
    )


def share_and_length() -> Drawn:
    """How the share and the length of inverse blocks act."""
    image = _pictures()[0]
    lengths = (1, 2, 3, 5, 7)
    rows = {}
    for share in (0.5, 0.75, 0.9):
        cells = []
        for length in lengths:
            masker = InverseBlockMasker(mask_prob=share, mask_length=length, mask_prob_adjust=0.1 * (length > 1))
            mask = masker(1, GRID, draw=Draw(seed=1, update=0, ids=torch.arange(1)))
            cells.append(hide(image, mask.hidden[0].view(GRID)))
        rows[f"mask_prob\n{share}"] = cells
    return (
        _gallery(rows, columns=[f"mask_length {lengths[0]}", *map(str, lengths[1:])]),
        "One picture under inverse block masks: from top to bottom more is hidden, from left to right the visible blocks "
        "are larger and fewer.",
    )


def spans() -> Drawn:
    """Masks on a line."""
    maskers: dict[str, Masker] = {
        "spans of 10 (1.0 speech)": SpanMasker(mask_prob=0.65, mask_length=10),
        "blocks of 5 (2.0 speech)": InverseBlockMasker(
            mask_prob=0.5, mask_length=5, mask_prob_adjust=0.05, inverse=False
        ),
        "one by one (2.0 text)": RandomMasker(mask_prob=0.48),
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
    """One picture, its views, and what the student computes on."""
    images = _pictures()[1:2]
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
        left, right = figure.subfigures(1, 2, width_ratios=(1, 2.6))
        one = left.subplots()
        _show(one, images[0])
        one.set_title("a sample", fontsize=8)
        cells = right.subplots(views, 2, width_ratios=(1, 4))
        for row, hidden, strip in zip(cells, mask.hidden, packed, strict=True):
            _show(row[0], hide(images[0], hidden.view(4, 4)))
            _show(row[1], strip)
        cells[0, 0].set_title("its views", fontsize=8)
        cells[0, 1].set_title("what the student computes on", fontsize=8)
    return figure, "A picture, four masked views of it, and beside each view its six visible patches in a row."


def tokens() -> Drawn:
    """Tokens for each view by the number of masks."""
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
        axes.set(xlabel="M, masks for each sample", ylabel="tokens for each view")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper right")
    return (
        figure,
        "Bars of encoded tokens for each view: the student's 39 stay, the teacher's 196 fall to 12 at M = 16.",
    )


def teacher() -> Drawn:
    """A weight of the student, and teachers of it."""
    steps, generator = 400, torch.Generator().manual_seed(5)
    student = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(student.weight)
    decays = (0.9, 0.99, 0.999)
    teachers = [EMATeacher(student, EMASchedule(decay)) for decay in decays]
    curves: list[list[float]] = [[] for _ in range(1 + len(decays))]
    for update in range(1, steps + 1):
        with torch.no_grad():
            student.weight.copy_(min(1.0, update / 150) + 0.25 * torch.randn(1, 1, generator=generator))
        for one in teachers:
            one.update(student, update)
        weights = [student.weight, *(one.module.weight for one in teachers)]
        for curve, weight in zip(curves, weights, strict=True):
            assert isinstance(weight, Tensor)
            curve.append(weight.item())
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(curves[0], color="black", alpha=0.25, linewidth=0.7, label="student")
        for curve, decay, colour, dash in zip(curves[1:], decays, COLOURS, DASHES, strict=False):
            axes.plot(curve, color=colour, linestyle=dash, label=f"decay {decay}")
        axes.set(xlabel="updates", ylabel="a weight", xlim=(0, steps))
        figure.legend(loc="outside upper left", ncols=4, columnspacing=1.2, handlelength=1.6)
    return figure, "A noisy weight that rises; the higher the decay, the smoother and the later the teacher follows."


def schedules() -> Drawn:
    """The published decays."""
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
        axes = figure.subplots()
        for name, colour, dash in zip(PUBLISHED, COLOURS, DASHES, strict=False):
            values = recipe_values(name)[1]["model"]["teacher"]["schedule"]
            schedule = EMASchedule(values["start"], end=values["end"], anneal=values["anneal"])
            at = [n for n in range(1, 300_002, 500) if schedule(n) < 1]
            axes.plot(
                [n / 1000 for n in at], [1 / (1 - schedule(n)) for n in at], color=colour, linestyle=dash, label=name
            )
        axes.set(yscale="log", xlabel="thousand updates", ylabel="length of the average", xlim=(0, 300))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure, "The length of the teacher's average in the published image recipes rises from 5,000 updates on."


def targets() -> Drawn:
    """Spread of the channels of each layer, with and without a norm."""
    look = trained()
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for layer, result in enumerate(look.layers):
            normed = (result - result.mean(1, keepdim=True)) / (result.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            for one, values in zip(axes, (result, normed), strict=True):
                spread = values.std(1, correction=0).mean(0).sort(descending=True).values
                one.plot(spread.numpy(), color=COLOURS[layer], linestyle=DASHES[layer], label=f"layer {layer}")
        axes[0].set(title="no norm", xlabel="channels, sorted", ylabel="deviation", ylim=(0, None))
        axes[1].set(title='"instance"', xlabel="channels, sorted")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, columnspacing=1.2)
    return (
        figure,
        "Standard deviation over the positions for each channel of four layers. Without a norm it differs between "
        "layers and falls steeply from channel to channel; with the instance norm it is one everywhere.",
    )


def target_colours() -> Drawn:
    """Targets as colours."""
    look = trained()
    rows = {"picture": list(look.images), "targets": look.colours(look.targets)}
    return _gallery(
        rows
    ), "Six pictures of clothes and the targets of their patches as colours: like parts, like colours."


def reach() -> Drawn:
    """How far a decoder carries one position."""
    layers = (1, 2, 4, 6, 13)
    cells = []
    for count in layers:
        torch.manual_seed(0)
        decoder = ConvDecoder(32, decoder_dim=32, num_layers=count, kernel_size=3, groups=1, dims=2).double()
        x = torch.randn(1, 196, 32, dtype=torch.float64)
        moved = x.clone()
        moved[0, 14 * 2 + 2] += 1  # not at the very border, so that the reach shows on both sides
        with torch.no_grad():
            change = (decoder(moved, GRID) - decoder(x, GRID))[0].norm(dim=-1).view(GRID)
        cells.append((change / change.max()) ** 0.25)  # a root: the tail counts as well
    with drawing():
        from matplotlib.colors import to_rgb
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.25), layout="constrained")
        colour = torch.tensor(to_rgb(COLOURS[0]))
        for one, count, cell in zip(figure.subplots(1, len(layers)), layers, cells, strict=True):
            shown = torch.cat([colour.expand(*GRID, 3), cell[..., None].float()], -1)
            one.imshow(shown.numpy(), interpolation="none", extent=(0, 14, 14, 0))
            one.plot(2.5, 2.5, marker="x", color="black", markersize=4)
            one.set_title(f"{count} layer{'s' * (count > 1)}", fontsize=8)
            one.set(xticks=[], yticks=[])
            one.grid(visible=False)
            one.spines[:].set_visible(True)
    return (
        figure,
        "A position near a corner reaches one patch further with every layer, and the whole grid with thirteen.",
    )


def reaches() -> Drawn:
    """Reach and need of the decoders in the recipes."""
    names = (*PUBLISHED, "vision/small")
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.8), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(names):
            model: Any = recipe_values(name)[1]["model"]
            decoder, adapter = model["predictors"]["vision"], model["adapters"]["vision"]
            far = decoder["num_layers"] * (decoder["kernel_size"] - 1) / 2
            need = adapter["image_size"] // adapter["patch_size"] - 1
            axes.barh(place, far, color=COLOURS[0], height=0.5, label="reach" if not place else None)
            axes.plot([need] * 2, [place - 0.4, place + 0.4], color="black", label="side - 1" if not place else None)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="positions")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower right")
    return (
        figure,
        "The decoders of the published image recipes reach 6 positions of 13 or 15; that of vision/small all 3.",
    )


FIGURES: Sequence[Callable[[], Drawn]] = (
    step,
    masks,
    share_and_length,
    spans,
    multimask,
    tokens,
    teacher,
    schedules,
    targets,
    target_colours,
    reach,
    reaches,
)


def figures() -> Iterator[tuple[str, str]]:
    """Paths below `_generated`, and HTML."""
    for draw in FIGURES:
        figure, label = draw()
        yield f"{draw.__name__}.svg", f'<figure class="drawn">\n{svg(figure, label=label)}</figure>\n'


@cache
def _pictures() -> Tensor:
    """Pictures `b 1 28 28`, 0 to 1."""
    return fashion_mnist("report")[0][chosen()] / 255


def _gallery(rows: Mapping[str, Sequence[Tensor]], columns: Sequence[str] = ()) -> "Figure":
    """Rows of pictures `c h w`, their names on the left; what is not a number stays empty."""
    with drawing():
        from matplotlib.figure import Figure

        count = max(map(len, rows.values()))
        cell = (WIDTH - 0.75) / count
        figure = Figure(figsize=(WIDTH, cell * len(rows) + 0.2 * bool(columns)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        cells = figure.subplots(len(rows), count, squeeze=False)
        for line, (name, images) in zip(cells, rows.items(), strict=True):
            for one, image in zip(line, images, strict=True):
                _show(one, image)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6)
        for one, title in zip(cells[0], columns, strict=False):
            one.set_title(title, fontsize=7, loc="center")
    return figure


def _show(axes: Any, image: Tensor) -> None:
    colour = image.expand(3, -1, -1).movedim(0, 2)
    there = ~colour.isnan().any(-1, keepdim=True)
    axes.imshow(torch.cat([colour.nan_to_num(), there.float()], -1).numpy(), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
