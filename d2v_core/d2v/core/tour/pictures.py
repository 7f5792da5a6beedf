"""The album of a trained run: its masks, what it predicts, its features, and what lies near what.

Everything is shown by real samples as pictures; what a picture is, the modality says.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from d2v.core.model import Batch, Data2Vec, StepOutput, Student
from d2v.core.plots import hide, pca_colours, png
from d2v.core.plots.arrays import plane, stretched
from d2v.core.probes import Features, collect_features, nearest_samples
from d2v.core.tour.album import Album, FeatureMaps, Imagined, Neighbour, Neighbours, View

_SHOWN = 6
_NEAREST = 5
_BANK = 1000  # samples whose patches predictions are shown by
_Pictures = Callable[[Batch], Tensor]


@frozen(kw_only=True)
class Material:
    """What an album is made of.

    Args:
        model: the trained one.
        untrained: its encoder before training.
        pretrained: its encoder after it.
        train: all samples to take neighbours and patches from.
        test: samples that were not trained on; some are shown.
        features: of both parts, by "untrained" and "pretrained", then "train" and "test".
        classes: their names in the order of their numbers.
        pictures: what samples look like.
    """

    model: Data2Vec
    untrained: Student
    pretrained: Student
    train: Batch
    test: Batch
    features: Mapping[str, Mapping[str, Features]]
    classes: tuple[str, ...]
    pictures: _Pictures


@torch.no_grad()
def draw(material: Material, *, curves: str = "") -> Album:
    """Draw all pictures; the model is in evaluation mode afterwards.

    Args:
        material: what of.
        curves: learning curves that are drawn already.
    """
    material.model.eval()
    shown = _one_of_each_class(material.test)
    out = material.model(shown, update=0)
    grid = material.pretrained.encode(shown).grid
    return Album(
        curves=curves,
        views=_views(material, shown, _hidden(out, grid)),
        imagined=_imagined(material, shown, out, grid),
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
    return out.mask.hidden.view(-1, out.mask.num_masks, *plane(grid))


def _views(material: Material, shown: Batch, hidden: Tensor) -> tuple[View, ...]:
    pictures = material.pictures(shown)
    return tuple(
        View(image=png(picture), masked=tuple(png(hide(picture, one)) for one in views))
        for picture, views in zip(pictures, hidden, strict=True)
    )


def _imagined(material: Material, shown: Batch, out: StepOutput, grid: tuple[int, ...]) -> tuple[Imagined, ...]:
    """Hidden places of the first view, filled with the patches whose targets are nearest."""
    places = torch.linspace(0, material.train.size - 1, min(_BANK, material.train.size)).long()
    others = _take(material.train, places)
    known = material.model(others, update=0)
    pictures, hidden = material.pictures(shown), _hidden(out, grid)
    patches = _patches(material.pictures(others), _hidden(known, grid))
    assert out.predictions is not None
    assert out.targets is not None
    assert known.targets is not None
    filled = {
        "predicted": patches[torch.cdist(out.predictions, known.targets).argmin(1)],
        "target": patches[torch.cdist(out.targets, known.targets).argmin(1)],
    }
    found, start = [], 0
    for picture, views in zip(pictures, hidden, strict=True):
        first, stop = views[0], start + int(views[0].sum())
        rows = {name: png(_with_patches(picture, first, some[start:stop])) for name, some in filled.items()}
        found.append(Imagined(image=png(picture), masked=png(hide(picture, first)), **rows))
        start += int(views.sum())
    return tuple(found)


def _patches(pictures: Tensor, hidden: Tensor) -> Tensor:
    """`n c ph pw`: the pixels at the hidden places of all views, in the order of predictions."""
    gh, gw = hidden.shape[-2:]
    b, c, h, w = pictures.shape
    cut = pictures.view(b, c, gh, h // gh, gw, w // gw).permute(0, 2, 4, 1, 3, 5)
    return cut[:, None].expand(-1, hidden.shape[1], *cut.shape[1:])[hidden]


def _with_patches(picture: Tensor, hidden: Tensor, patches: Tensor) -> Tensor:
    gh, gw = hidden.shape
    c, h, w = picture.shape
    cut = picture.clone().view(c, gh, h // gh, gw, w // gw).permute(1, 3, 0, 2, 4).contiguous()
    cut[hidden] = patches
    return cut.permute(2, 0, 3, 1, 4).reshape(c, h, w)


def _feature_maps(material: Material, shown: Batch, cells: tuple[int, int]) -> tuple[FeatureMaps, ...]:
    pictures, maps = material.pictures(shown), {}
    size = (pictures.shape[2], pictures.shape[3])
    for name, encoder in (("untrained", material.untrained), ("pretrained", material.pretrained)):
        found = collect_features(encoder, [shown], poolings=["tokens"])
        # All pictures of a network at once, so that like colours mean like features.
        colours = pca_colours(found.values["all"]["tokens"].view(shown.size, *cells, -1))
        maps[name] = [png(stretched(one.movedim(2, 0), size)) for one in colours]
    return tuple(
        FeatureMaps(image=png(picture), untrained=before, pretrained=after)
        for picture, before, after in zip(pictures, maps["untrained"], maps["pretrained"], strict=True)
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
    pictures = material.pictures(shown)
    return tuple(
        Neighbours(
            query=Neighbour(image=png(picture), name=_name(material, shown, place)),
            **{name: _told(material, index[place].tolist()) for name, index in nearest.items()},
        )
        for place, picture in enumerate(pictures)
    )


def _told(material: Material, index: Sequence[int]) -> tuple[Neighbour, ...]:
    found = _take(material.train, torch.tensor(index))
    return tuple(
        Neighbour(image=png(picture), name=_name(material, found, place))
        for place, picture in enumerate(material.pictures(found))
    )


def _name(material: Material, batch: Batch, place: int) -> str:
    assert batch.labels is not None
    return material.classes[int(batch.labels[place])]
