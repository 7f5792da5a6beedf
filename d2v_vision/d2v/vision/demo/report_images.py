"""The images of a report, as PNG bytes: what was drawn, and for what.

The page that shows them knows no tensors, and who draws them knows no HTML.
"""

from typing import Any

from attrs import Attribute, field, frozen

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _check(instance: object, attribute: "Attribute[Any]", value: bytes | tuple[bytes, ...]) -> None:
    for number, image in enumerate((value,) if isinstance(value, bytes) else value):
        if not image.startswith(_SIGNATURE):
            place = attribute.name if isinstance(value, bytes) else f"{attribute.name}[{number}]"
            raise ValueError(f"{type(instance).__name__}.{place} is not a PNG; write it with d2v.core.plots.png")


def _image() -> Any:
    return field(validator=_check)


@frozen(kw_only=True)
class View:
    """An image and its masked views.

    Args:
        image: the whole one.
        masked: one image for each of the M views, hidden patches blanked.

    Raises:
        ValueError: if an image is no PNG, here and in all classes of an images.

    >>> View(image=b"GIF89a", masked=())
    Traceback (most recent call last):
    ValueError: View.image is not a PNG; write it with d2v.core.plots.png
    """

    image: bytes = _image()
    masked: tuple[bytes, ...] = _image()


@frozen(kw_only=True)
class Prediction:
    """What the student predicts at hidden places, shown by real patches of other images.

    Args:
        image: the whole one.
        masked: what the student sees of it.
        predicted: each hidden place filled with the patch whose target is nearest to the prediction.
        target: the same with the teacher's target in place of the prediction.

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
    """Features of an image's patches as colours, their three principal components.

    Args:
        image: the image.
        untrained: by the network before training.
        pretrained: by the network after it.

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
    """An image and those nearest to it, the nearest first.

    Args:
        query: the image.
        untrained: its neighbours in the features of the network before training.
        pretrained: its neighbours after it.

    >>> bag = Neighbour(image=bytes.fromhex("89504e470d0a1a0a"), name="Bag")
    >>> len(Neighbours(query=bag, untrained=(bag,), pretrained=(bag, bag)).pretrained)
    2
    """

    query: Neighbour
    untrained: tuple[Neighbour, ...]
    pretrained: tuple[Neighbour, ...]


@frozen(kw_only=True)
class ReportImages:
    """All images of a report. A section of the page whose images are missing is left out.

    Args:
        curves: learning curves, an inline SVG that is put into the page as it is.
        views: images and their masks.
        predictions: predictions at hidden places.
        features: images of patch features.
        neighbours: nearest neighbours before and after.

    >>> ReportImages().views
    ()
    """

    curves: str = ""
    views: tuple[View, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    features: tuple[FeatureMaps, ...] = ()
    neighbours: tuple[Neighbours, ...] = ()
