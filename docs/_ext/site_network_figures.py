"""Figures of the training step, the teacher, its targets and the decoder, drawn by these pieces."""

from typing import Any

import torch
from site_drawing import WIDTH, Drawn, image_grid
from site_model import trained
from torch import Tensor, nn

from d2v.core import ConvDecoder, EMASchedule, EMATeacher
from d2v.core.plots.style import COLOURS, DASHES, drawing
from d2v.core.recipes import recipe_values

GRID = (14, 14)
PUBLISHED = ("vision/base", "vision/large", "vision/huge14", "vision/huge16")


def step() -> Drawn:
    """One training step."""
    look = trained()
    guesses = torch.stack(look.colours(look.predictions))
    shown = guesses.where(look.mask.hidden.view(-1, 1, 4, 4), torch.nan)
    rows = {
        "image": list(look.images),
        "teacher's\ntargets": look.colours(look.targets),
        "student's\ninput": look.views(),
        "student's\npredictions": list(shown),
    }
    return (
        image_grid(rows),
        "Six images of clothes; the teacher's features of all their patches as colours; the images with most "
        "patches hidden; and the student's predictions at the hidden positions, in the same colours.",
    )


def teacher() -> Drawn:
    """A weight of the student, and the same weight in teachers with different decays."""
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
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure, "A noisy weight that rises; the higher the decay, the smoother and the later the teacher's curve."


def schedules() -> Drawn:
    """Schedules of the published decays."""
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
    """Standard deviation of the channels of each layer, with and without a norm."""
    look = trained()
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for layer, result in enumerate(look.layers):
            normed = (result - result.mean(1, keepdim=True)) / (result.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            for one, values in zip(axes, (result, normed), strict=True):
                std = values.std(1, correction=0).mean(0).sort(descending=True).values
                one.plot(std.numpy(), color=COLOURS[layer], linestyle=DASHES[layer], label=f"layer {layer}")
        axes[0].set(title="no norm", xlabel="channels, sorted", ylabel="standard deviation", ylim=(0, None))
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
    rows = {"image": list(look.images), "targets": look.colours(look.targets)}
    return image_grid(
        rows
    ), "Six images of clothes and the targets of their patches as colours; similar parts have similar colours."


def reach() -> Drawn:
    """Receptive field of a decoder, by its number of layers."""
    layers = (1, 2, 4, 6, 13)
    cells = []
    for count in layers:
        torch.manual_seed(0)
        decoder = ConvDecoder(32, decoder_dim=32, num_layers=count, kernel_size=3, groups=1, dims=2).double()
        x = torch.randn(1, 196, 32, dtype=torch.float64)
        moved = x.clone()
        moved[0, 14 * 2 + 2] += 1  # away from the border, to show the reach on both sides
        with torch.no_grad():
            change = (decoder(moved, GRID) - decoder(x, GRID))[0].norm(dim=-1).view(GRID)
        strength = (change / change.max()) ** 0.25  # a root makes small changes visible
        cells.append((0.15 + 0.85 * strength).where(change > 0, 0))
    with drawing():
        from matplotlib.colors import to_rgb
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 0.95), layout="constrained")
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
    """Reach of the decoders in the recipes, and the reach that spans their grid."""
    names = (*PUBLISHED, "vision/small")
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.8), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(names):
            model: Any = recipe_values(name)[1]["model"]
            decoder, adapter = model["predictors"]["vision"], model["student"]["adapters"]["vision"]
            far = decoder["num_layers"] * (decoder["kernel_size"] - 1) / 2
            need = adapter["image_size"] // adapter["patch_size"] - 1
            axes.barh(place, far, color=COLOURS[0], height=0.5, label="reach" if not place else None)
            axes.plot([need] * 2, [place - 0.4, place + 0.4], color="black", label="side - 1" if not place else None)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="positions")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return (
        figure,
        "The decoders of the published image recipes reach 6 of 13 or 15 positions, that of vision/small all 3.",
    )
