"""A small model for the figures of features: `vision/small`, trained for a few hundred updates."""

from functools import cache

import torch
from attrs import frozen
from site_drawing import chosen, sample_images
from torch import Tensor

from d2v.core import Batch, Draw, fit
from d2v.core.masks import Mask
from d2v.core.nn import LayerFeatures
from d2v.core.plots import hide, pca_colours
from d2v.core.recipes import PretrainRecipe, read_recipe

STEPS = 300


@frozen(kw_only=True, eq=False)
class Look:
    """Outputs of a trained model for a few images.

    Args:
        images: `b c h w`, 0 to 1.
        mask: one view of each, `b t`.
        layers: the teacher's layer results, `b t d` each.
        targets: `b t d`.
        predictions: `b t d`, of the student from its view; zero at visible positions.
    """

    images: Tensor
    mask: Mask
    layers: list[Tensor]
    targets: Tensor
    predictions: Tensor

    def views(self) -> list[Tensor]:
        """The input of the student, `c h w` each."""
        return [hide(image, row.view(4, 4)) for image, row in zip(self.images, self.mask.hidden, strict=True)]

    def colours(self, features: Tensor) -> list[Tensor]:
        """Features `b t d` as images `3 h w`; targets and predictions share the colours."""
        hidden = self.mask.hidden.flatten()
        known = self.targets.flatten(0, 1)
        given = features.flatten(0, 1).where(hidden[:, None] | (features is self.targets), known)
        colours = pca_colours(torch.cat([known, given]))[len(known) :]
        return list(colours.view(-1, 4, 4, 3).movedim(-1, 1))


@cache
def trained() -> Look:
    """Train, and compute outputs for images that were not trained on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads wait for each other and are much slower
    try:
        return _train_and_look()
    finally:
        torch.set_num_threads(threads)


def _train_and_look() -> Look:
    settings = {"data.path": "fashion-mnist", "out": "unused", "train.max_steps": STEPS}
    recipe = read_recipe("vision/small", settings, PretrainRecipe)
    torch.manual_seed(recipe.seed)
    model = recipe.model_config().build()
    source, masker = recipe.sources["vision"], recipe.masks["vision"]
    data = source.build("train", batch_size=recipe.train.batch_size, seed=recipe.seed, training=True)
    optimizer, schedule = recipe.optim.build(model), recipe.optim.build_schedule(STEPS)
    fit(model, data, optimizer=optimizer, schedule=schedule, max_steps=STEPS, clip=recipe.optim.clip, seed=recipe.seed)

    model.eval()
    places, grid = chosen(), (4, 4)
    first = next(iter(source.build("test", batch_size=max(places) + 1)))
    assert first.ids is not None
    assert first.ids[places].tolist() == places
    mask = masker(len(places), grid, draw=Draw(seed=1, update=0, ids=torch.arange(len(places))))
    batch = Batch(source=first.source[places], mask=mask, modality="vision")
    sink = LayerFeatures(range(recipe.model.student.depth))
    with torch.no_grad():
        out = model(batch, update=0)
        model.encode_teacher(batch, sink=model.targets)
        targets = model.targets.finish()
        model.encode_teacher(batch, sink=sink)
    assert out.predictions is not None
    predictions = torch.zeros_like(targets).flatten(0, 1).index_copy(0, mask.index, out.predictions).view_as(targets)
    return Look(
        images=sample_images(),
        mask=mask,
        layers=[result[:, 1:] for _, result in sorted(sink.results.items())],  # without the class token
        targets=targets,
        predictions=predictions,
    )
