"""Draw the images of a report: masks, predictions, patch features and nearest neighbours of a trained run."""

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import frozen
from einops import rearrange, repeat
from torch import Tensor

from d2v.core.model import Batch, Data2Vec, StepOutput, Student
from d2v.core.plots import hide, pca_colours, png
from d2v.core.plots.arrays import plane, stretched
from d2v.core.probes import Features, collect_features, nearest_samples
from d2v.vision.demo.report_images import FeatureMaps, MaskedViews, Neighbour, Neighbours, Prediction, ReportImages

_SHOWN = 6
_NEAREST = 5
_BANK = 1000  # samples whose patches fill the hidden positions
_Images = Callable[[Batch], Tensor]


@frozen(kw_only=True)
class Material:
    """Models and data that the images are drawn from.

    Args:
        model: the trained model.
        untrained: its encoder before training.
        pretrained: its encoder after training.
        train: all samples to take neighbours and patches from.
        test: held-out samples; some are shown.
        features: features of both splits, by "untrained" and "pretrained", then "train" and "test".
        classes: class names in the order of their numbers.
        images: function from a batch to its images for display.
    """

    model: Data2Vec
    untrained: Student
    pretrained: Student
    train: Batch
    test: Batch
    features: Mapping[str, Mapping[str, Features]]
    classes: tuple[str, ...]
    images: _Images


@torch.no_grad()
def draw(material: Material, *, curves: str = "") -> ReportImages:
    """Draw all images; this sets the model to evaluation mode.

    Args:
        material: models and data.
        curves: learning curves, already drawn.
    """
    material.model.eval()
    shown = _one_of_each_class(material.test)
    out = material.model(shown, update=0)
    grid = material.pretrained.encode(shown).grid
    return ReportImages(
        curves=curves,
        views=_views(material, shown, _hidden(out, grid)),
        predictions=_predictions(material, shown, out, grid),
        features=_feature_maps(material, shown, plane(grid)),
        neighbours=_neighbours(material, shown),
    )


def _take(batch: Batch, index: Tensor) -> Batch:
    """Select samples by index, Long `n`, from a batch with ids and labels."""
    assert batch.ids is not None
    assert batch.labels is not None
    return Batch(source=batch.source[index], ids=batch.ids[index], labels=batch.labels[index], modality=batch.modality)


def _one_of_each_class(test: Batch) -> Batch:
    """Select the first sample of each class, up to the number shown."""
    assert test.labels is not None  # the probes need them too
    labels = test.labels.tolist()
    first = [labels.index(label) for label in dict.fromkeys(labels)]
    return _take(test, torch.tensor(first[:_SHOWN]))


def _hidden(out: StepOutput, grid: tuple[int, ...]) -> Tensor:
    """Hidden patches of each view, Bool `b m gh gw`."""
    assert out.mask is not None
    return rearrange(out.mask.hidden, "(b m) (gh gw) -> b m gh gw", m=out.mask.num_masks, gh=plane(grid)[0])


def _views(material: Material, shown: Batch, hidden: Tensor) -> tuple[MaskedViews, ...]:
    images = material.images(shown)
    return tuple(
        MaskedViews(image=png(image), masked=tuple(png(hide(image, one)) for one in views))
        for image, views in zip(images, hidden, strict=True)
    )


def _predictions(material: Material, shown: Batch, out: StepOutput, grid: tuple[int, ...]) -> tuple[Prediction, ...]:
    """Fill the hidden positions of the first view with the patches whose targets are nearest."""
    indices = torch.linspace(0, material.train.size - 1, min(_BANK, material.train.size)).long()
    others = _take(material.train, indices)
    known = material.model(others, update=0)
    images, hidden = material.images(shown), _hidden(out, grid)
    patches = cut_patches(material.images(others), _hidden(known, grid))
    assert out.predictions is not None
    assert out.targets is not None
    assert known.targets is not None
    filled = {
        "predicted": patches[torch.cdist(out.predictions, known.targets).argmin(1)],
        "target": patches[torch.cdist(out.targets, known.targets).argmin(1)],
    }
    found, start = [], 0
    for image, views in zip(images, hidden, strict=True):
        first, stop = views[0], start + int(views[0].sum())
        rows = {name: png(put_patches(image, first, some[start:stop])) for name, some in filled.items()}
        found.append(Prediction(image=png(image), masked=png(hide(image, first)), **rows))
        start += int(views.sum())
    return tuple(found)


def cut_patches(images: Tensor, hidden: Tensor) -> Tensor:
    """Cut the pixels at the hidden positions of all views, in the order of predictions.

    Args:
        images: `b c h w`; h is a multiple of gh, w of gw.
        hidden: Bool `b m gh gw`.

    Returns:
        `n c h/gh w/gw`, ordered by sample, view and position.

    >>> cut_patches(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[[[False, True], [True, False]]]])).flatten()
    tensor([1., 2.])
    """
    m, gh, gw = hidden.shape[1:]
    cut = rearrange(images, "b c (gh ph) (gw pw) -> b gh gw c ph pw", gh=gh, gw=gw)
    return repeat(cut, "b ... -> b m ...", m=m)[hidden]


def put_patches(image: Tensor, hidden: Tensor, patches: Tensor) -> Tensor:
    """Replace the patches at the hidden positions of an image.

    Args:
        image: `c h w`; h is a multiple of gh, w of gw.
        hidden: Bool `gh gw`.
        patches: `n c h/gh w/gw`, one for each hidden position.

    Returns:
        A new image, `c h w`.

    >>> put_patches(torch.zeros(1, 2, 2), torch.tensor([[False, True], [False, False]]), torch.ones(1, 1, 1, 1))
    tensor([[[0., 1.],
             [0., 0.]]])
    """
    gh, gw = hidden.shape
    cut = rearrange(image, "c (gh ph) (gw pw) -> gh gw c ph pw", gh=gh, gw=gw).clone()
    cut[hidden] = patches
    return rearrange(cut, "gh gw c ph pw -> c (gh ph) (gw pw)")


def _feature_maps(material: Material, shown: Batch, cells: tuple[int, int]) -> tuple[FeatureMaps, ...]:
    images, maps = material.images(shown), {}
    size = (images.shape[2], images.shape[3])
    for name, encoder in (("untrained", material.untrained), ("pretrained", material.pretrained)):
        found = collect_features(encoder, [shown], poolings=["tokens"])
        # All images of a network together, so that similar colours mean similar features.
        colours = pca_colours(found.values["all"]["tokens"])
        planes = rearrange(colours, "b (gh gw) c -> b c gh gw", gh=cells[0])
        maps[name] = [png(stretched(one, size)) for one in planes]
    return tuple(
        FeatureMaps(image=png(image), untrained=before, pretrained=after)
        for image, before, after in zip(images, maps["untrained"], maps["pretrained"], strict=True)
    )


def _neighbours(material: Material, shown: Batch) -> tuple[Neighbours, ...]:
    assert shown.ids is not None
    assert material.test.ids is not None
    rows = [int((material.test.ids == one).nonzero()[0]) for one in shown.ids]
    nearest = {
        name: nearest_samples(
            parts["train"].values["all"]["mean"], parts["test"].values["all"]["mean"][rows], k=_NEAREST
        )
        for name, parts in material.features.items()
    }
    images = material.images(shown)
    return tuple(
        Neighbours(
            query=Neighbour(image=png(image), name=_name(material, shown, number)),
            **{name: _neighbour_images(material, index[number].tolist()) for name, index in nearest.items()},
        )
        for number, image in enumerate(images)
    )


def _neighbour_images(material: Material, index: Sequence[int]) -> tuple[Neighbour, ...]:
    found = _take(material.train, torch.tensor(index))
    return tuple(
        Neighbour(image=png(image), name=_name(material, found, number))
        for number, image in enumerate(material.images(found))
    )


def _name(material: Material, batch: Batch, number: int) -> str:
    assert batch.labels is not None
    return material.classes[int(batch.labels[number])]
