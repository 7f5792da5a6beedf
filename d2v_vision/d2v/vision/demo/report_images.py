"""The images of a report as PNG bytes: the interface between drawing and page.

The page needs no tensors, and drawing needs no HTML.
"""

from typing import Any

from attrs import Attribute, field, frozen

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _check(instance: object, attribute: "Attribute[Any]", value: bytes | tuple[bytes, ...]) -> None:
    for number, image in enumerate((value,) if isinstance(value, bytes) else value):
        if not image.startswith(_SIGNATURE):
            name = attribute.name if isinstance(value, bytes) else f"{attribute.name}[{number}]"
            raise ValueError(f"{type(instance).__name__}.{name} is not a PNG; write it with d2v.core.plots.png")


def _image() -> Any:
    return field(validator=_check)


@frozen(kw_only=True)
class MaskedViews:
    """An image and its masked views.

    Args:
        image: the whole image.
        masked: one image for each of the M views, with hidden patches blanked.

    Raises:
        ValueError: if an image is not a PNG, here and in all classes of this module.

    >>> MaskedViews(image=b"GIF89a", masked=())
    Traceback (most recent call last):
    ValueError: MaskedViews.image is not a PNG; write it with d2v.core.plots.png
    """

    image: bytes = _image()
    masked: tuple[bytes, ...] = _image()


@frozen(kw_only=True)
class Prediction:
    """The student's predictions at hidden positions, shown by real patches of other images.

    Args:
        image: the whole image.
        masked: the part that the student sees.
        predicted: each hidden position filled with the patch whose target is nearest to the prediction.
        target: the same for the teacher's target.

    >>> png = bytes.fromhex("89504e470d0a1a0a")
    >>> Prediction(image=png, masked=png, predicted=png, target=png).target[1:4]
    b'PNG'
    """

    image: bytes = _image()
    masked: bytes = _image()
    predicted: bytes = _image()
    target: bytes = _image()


@frozen(kw_only=True)
class FeatureMaps:
    """Patch features of an image as colours: their first three principal components.

    Args:
        image: the image.
        untrained: features of the untrained network.
        pretrained: features of the pretrained network.

    >>> png = bytes.fromhex("89504e470d0a1a0a")
    >>> FeatureMaps(image=png, untrained=png, pretrained=png).image[1:4]
    b'PNG'
    """

    image: bytes = _image()
    untrained: bytes = _image()
    pretrained: bytes = _image()


@frozen(kw_only=True)
class Neighbour:
    """An image and the name of its class.

    >>> Neighbour(image=bytes.fromhex("89504e470d0a1a0a"), name="Bag").name
    'Bag'
    """

    image: bytes = _image()
    name: str


@frozen(kw_only=True)
class Neighbours:
    """An image and its nearest neighbours, the nearest first.

    Args:
        query: the image.
        untrained: neighbours by the features of the untrained network.
        pretrained: neighbours by the features of the pretrained network.

    >>> bag = Neighbour(image=bytes.fromhex("89504e470d0a1a0a"), name="Bag")
    >>> len(Neighbours(query=bag, untrained=(bag,), pretrained=(bag, bag)).pretrained)
    2
    """

    query: Neighbour
    untrained: tuple[Neighbour, ...]
    pretrained: tuple[Neighbour, ...]


@frozen(kw_only=True)
class ReportImages:
    """All images of a report. The page leaves out sections without images.

    Args:
        curves: learning curves, an SVG that is inserted into the page unchanged.
        views: images and their masked views.
        predictions: predictions at hidden positions.
        features: patch features as colours.
        neighbours: nearest neighbours before and after pretraining.

    >>> ReportImages().views
    ()
    """

    curves: str = ""
    views: tuple[MaskedViews, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    features: tuple[FeatureMaps, ...] = ()
    neighbours: tuple[Neighbours, ...] = ()
