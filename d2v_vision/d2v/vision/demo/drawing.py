"""The images of a trained run: its masks, what it predicts, its features, and what lies near what.

Everything is shown by real samples as images.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import frozen
from einops import rearrange, repeat
from torch import Tensor

from d2v.core.model import Batch, Data2Vec, StepOutput, Student
from d2v.core.plots import hide, pca_colours, png
from d2v.core.plots.arrays import plane, stretched
from d2v.core.probes import Features, collect_features, nearest_samples
from d2v.vision.demo.report_images import FeatureMaps, Neighbour, Neighbours, Prediction, ReportImages, View

_SHOWN = 6
_NEAREST = 5
_BANK = 1000  # samples whose patches predictions are shown by
_Images = Callable[[Batch], Tensor]


@frozen(kw_only=True)
class Material:
    """What an images is made of.

    Args:
        model: the trained one.
        untrained: its encoder before training.
        pretrained: its encoder after it.
        train: all samples to take neighbours and patches from.
        test: samples that were not trained on; some are shown.
        features: of both parts, by "untrained" and "pretrained", then "train" and "test".
        classes: their names in the order of their numbers.
        images: what samples look like.
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
    """Draw all images; the model is in evaluation mode afterwards.

    Args:
        material: what of.
        curves: learning curves that are drawn already.
    """
    material.model.eval()
    shown = _one_of_each_class(material.test)
    out = material.model(shown, update=0)
    grid = material.pretrained.encode(shown).grid
    return ReportImages(
        curves=curves,
        views=_views(material, shown, _hidden(out, grid)),
        predictions=_imagined(material, shown, out, grid),
        features=_feature_maps(material, shown, plane(grid)),
        neighbours=_neighbours(material, shown),
    )


def _take(batch: Batch, index: Tensor) -> Batch:
    """The samples at Long `n` of a batch that has ids and labels."""
    assert batch.ids is not None
    assert batch.labels is not None
    return Batch(source=batch.source[index], ids=batch.ids[index], labels=batch.labels[index], modality=batch.modality)


def _one_of_each_class(test: Batch) -> Batch:
    """The first samples that are of different classes."""
    assert test.labels is not None  # the probes have read them
    labels = test.labels.tolist()
    first = [labels.index(label) for label in dict.fromkeys(labels)]
    return _take(test, torch.tensor(first[:_SHOWN]))


def _hidden(out: StepOutput, grid: tuple[int, ...]) -> Tensor:
    """Bool `b m gh gw`, what each view hides."""
    assert out.mask is not None
    return rearrange(out.mask.hidden, "(b m) (gh gw) -> b m gh gw", m=out.mask.num_masks, gh=plane(grid)[0])


def _views(material: Material, shown: Batch, hidden: Tensor) -> tuple[View, ...]:
    images = material.images(shown)
    return tuple(
        View(image=png(image), masked=tuple(png(hide(image, one)) for one in views))
        for image, views in zip(images, hidden, strict=True)
    )


def _imagined(material: Material, shown: Batch, out: StepOutput, grid: tuple[int, ...]) -> tuple[Prediction, ...]:
    """Hidden places of the first view, filled with the patches whose targets are nearest."""
    places = torch.linspace(0, material.train.size - 1, min(_BANK, material.train.size)).long()
    others = _take(material.train, places)
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
    """The pixels at the hidden places of all views, in the order of predictions.

    Args:
        images: `b c h w`; h is a multiple of gh, w of gw.
        hidden: Bool `b m gh gw`.

    Returns:
        `n c h/gh w/gw`, sample first, then view, then place.

    >>> cut_patches(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[[[False, True], [True, False]]]])).flatten()
    tensor([1., 2.])
    """
    m, gh, gw = hidden.shape[1:]
    cut = rearrange(images, "b c (gh ph) (gw pw) -> b gh gw c ph pw", gh=gh, gw=gw)
    return repeat(cut, "b ... -> b m ...", m=m)[hidden]


def put_patches(image: Tensor, hidden: Tensor, patches: Tensor) -> Tensor:
    """A image with other patches at its hidden places.

    Args:
        image: `c h w`; h is a multiple of gh, w of gw.
        hidden: Bool `gh gw`.
        patches: `n c h/gh w/gw`, one for each hidden place.

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
        # All images of a network at once, so that like colours mean like features.
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
            query=Neighbour(image=png(image), name=_name(material, shown, place)),
            **{name: _told(material, index[place].tolist()) for name, index in nearest.items()},
        )
        for place, image in enumerate(images)
    )


def _told(material: Material, index: Sequence[int]) -> tuple[Neighbour, ...]:
    found = _take(material.train, torch.tensor(index))
    return tuple(
        Neighbour(image=png(image), name=_name(material, found, place))
        for place, image in enumerate(material.images(found))
    )


def _name(material: Material, batch: Batch, place: int) -> str:
    assert batch.labels is not None
    return material.classes[int(batch.labels[place])]
