"""The report page: whole, closed, honest, and readable with what is there."""

import copy
import re
import struct
import zlib
from base64 import b64decode
from html.parser import HTMLParser
from importlib import import_module

import pytest
import torch

from d2v.vision.tour import Album, FeatureMaps, Imagined, Neighbour, Neighbours, View, page

pytest.importorskip("jinja2")

CURVES = """<svg role="img" aria-label="Loss" viewBox="0 0 640 200"><g fill="none" stroke="currentColor">
<path d="M40 10V170H630"/>
<path d="M40 20L90 110 150 135 260 150 400 156 630 160" stroke="#2a8f85" stroke-width="2"/></g>
<text x="40" y="190" fill="currentColor" font-size="12">updates</text></svg>"""

REPORT = {
    "probe": {
        "mean": {
            "knn": {"pixels": 84.1, "random_init": 69.8, "pretrained": 83.9},
            "linear": {"pixels": 84.5, "random_init": 74.9, "pretrained": 86.0},
            "linear_100": {"pixels": 72.0, "random_init": 51.6, "pretrained": 73.0},
        },
        "grid": {
            "knn": {"pixels": 84.1, "random_init": 79.8, "pretrained": 85.5},
            "linear": {"pixels": 84.5, "random_init": 83.4, "pretrained": 87.7},
            "linear_100": {"pixels": 72.0, "random_init": 65.1, "pretrained": 74.8},
        },
    },
    "finetune_100": {"scratch": 61.6, "pretrained": 71.7},
    "seconds": 297.4,
    "steps": 7000,
    "images_seen": 56000,
    "device": "cpu",
    "seed": 0,
    "recipe": "vision/small",
}
MORE = {
    "std": {
        "probe": {
            "mean": {"linear_100": {"pixels": 2.2, "random_init": 1.0, "pretrained": 0.9}},
            "grid": {"linear_100": {"pixels": 2.2, "random_init": 1.1, "pretrained": 2.0}},
        },
        "finetune_100": {"scratch": 2.8, "pretrained": 1.8},
    },
    "seconds_of": {"pretraining": 240.1, "probing": 30.2, "fine-tuning": 20.0, "pictures": 7.1},
    "samples": {"train": 10000, "test": 2000},
    "version": "0.1.0",
}


def png(image):
    """A picture as PNG: uint8 `h w` or `h w 3`, in the plainest form there is."""
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in image)
    kind = 2 if image.ndim == 3 else 0

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def hide(image, hidden):
    """An image with its hidden patches grey: uint8 `28 28`, Bool `4 4`."""
    return image.masked_fill(hidden.repeat_interleave(7, 0).repeat_interleave(7, 1), 128)


def sample_album(n=6):
    """An album of shipped pictures; masks, predictions, features and neighbours are made up."""
    builtin = pytest.importorskip("d2v.vision.builtin")
    images, labels = builtin.fashion_mnist("test")
    images, names = images[:, 0], [builtin.FASHION_MNIST_CLASSES[label] for label in labels.tolist()]
    hidden = torch.rand(n, 8, 4, 4) < 0.6
    patches = torch.rand(3, n, 4, 4, 3).mul(255).byte()

    def neighbours_of(query, fraction):
        wrong = (torch.rand(6) > fraction).tolist()
        found = [i for i in range(100, 400) if (names[i] == names[query]) != wrong[i % 6]]
        return tuple(Neighbour(image=png(images[i]), name=names[i]) for i in found[:6])

    return Album(
        curves=CURVES,
        views=tuple(
            View(image=png(images[i]), masked=tuple(png(hide(images[i], one)) for one in hidden[i])) for i in range(n)
        ),
        imagined=tuple(
            Imagined(
                image=png(images[i]),
                masked=png(hide(images[i], hidden[i, 0])),
                predicted=png(hide(images[i], hidden[i, 0])),
                target=png(images[i + n]),
            )
            for i in range(n)
        ),
        features=tuple(
            FeatureMaps(image=png(images[i]), untrained=png(patches[0, i]), pretrained=png(patches[1, i]))
            for i in range(n)
        ),
        neighbours=tuple(
            Neighbours(
                query=Neighbour(image=png(images[i]), name=names[i]),
                untrained=neighbours_of(i, 0.5),
                pretrained=neighbours_of(i, 0.8),
            )
            for i in range(n)
        ),
    )


@pytest.fixture(scope="module")
def album():
    torch.manual_seed(0)
    return sample_album()


def changed(**values):
    """The report with figures of the mean pooling replaced, by probe."""
    report = copy.deepcopy(REPORT)
    for probe, pretrained in values.items():
        report["probe"]["mean"][probe]["pretrained"] = pretrained
    return report


class Reader(HTMLParser):
    """Reads a page; objects to what is not closed, and keeps what the tests ask about."""

    VOID = ("meta", "img", "br", "link", "hr", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.headings, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


# --- a page -----------------------------------------------------------------------------------------------------------


def test_everything_is_closed_and_in_order(album):
    read = Reader(page(REPORT | MORE, album))
    assert read.headings[0] == 1
    assert read.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(read.headings, read.headings[1:], strict=False))
    assert read.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all("meta")
    ids = [attributes["id"] for _, attributes in read.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in read.attributes:
        assert attributes.get("aria-labelledby") in {None, *ids}
    assert {link["href"][1:] for link in read.all("a") if link["href"].startswith("#")} <= set(ids)


def test_reader_sees_what_is_open():
    with pytest.raises(AssertionError):
        Reader("<p><b>text</p>")
    with pytest.raises(AssertionError):
        Reader("<p>")


def test_nothing_is_fetched(album):
    text = page(REPORT | MORE, album)
    read = Reader(text)
    sources = [
        value for _, attributes in read.attributes for name, value in attributes.items() if name in ("src", "srcset")
    ]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for tag, attributes in read.attributes:
        if "href" in attributes:
            assert tag == "a"
            assert re.fullmatch(r"#\w+|https://arxiv\.org/abs/\d{4}\.\d{5}", attributes["href"])
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in read.attributes}
    assert "@import" not in text
    assert "url(" not in text


def test_pictures_have_words(album):
    text = page(REPORT | MORE, album)
    read = Reader(text)
    images = read.all("img")
    assert len(images) == 6 * (9 + 4 + 3 + 13)
    assert all("alt" in image for image in images)
    # Without words of its own only where the name stands below.
    assert len([image for image in images if not image["alt"]]) == 6 * 13
    assert "Picture 2, view 8 of 8, hidden patches blanked" in {image["alt"] for image in images}
    assert len(re.findall(r'alt=""><figcaption>(?:<span class="unseen">same class: </span>)?\s*\w', text)) == 6 * 13


def test_the_picture_is_the_one_in_the_album(album):
    source = Reader(page(REPORT, album)).all("img")[0]["src"]
    assert b64decode(source.partition(",")[2]) == album.views[0].image


def test_size(album):
    assert len(page(REPORT | MORE, album).encode()) < 2_000_000


def test_figures_are_there(album):
    read = Reader(page(REPORT | MORE, album))
    for number in ("84.1", "69.8", "83.9", "61.6", "71.7", "±2.2", "±2.8", "7,000", "56,000", "10,000", "4 min 57 s"):
        assert number in read.text
    assert "d2v quickstart --out again --steps 7000 --seed 0" in read.text
    assert "4 min 0 s" in read.text  # pretraining alone
    assert "each about 6 times" in read.text


def test_pixels_and_untrained_stand_beside_every_figure():
    text = page(REPORT, Album())
    table = text[text.index("<table>") : text.index("</table>")]
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", table, re.S)
    assert len(rows) == 7
    assert all(row.count("<td>") == 3 and len(re.findall(r"\d+\.\d", row)) == 3 for row in rows)


def test_the_best_of_a_row_is_marked_without_colour():
    text = page(REPORT, Album())
    marked = re.findall(r"best: </span>(\d+\.\d)", text)
    assert marked == ["84.1", "85.5", "86.0", "87.7", "73.0", "74.8", "72.0"]


def test_equals_are_both_the_best():
    assert re.findall(r"best: </span>(\d+\.\d)", page(changed(knn=84.09), Album()))[:2] == ["84.1", "84.1"]


def test_neighbours_of_the_same_class_are_marked():
    bag, shoe = (Neighbour(image=png(torch.zeros(1, 1).byte()), name=name) for name in ("Bag", "Sneaker"))
    one = Neighbours(query=bag, untrained=(bag, shoe, shoe), pretrained=(bag, bag, shoe))
    text = page(REPORT, Album(neighbours=(one,)))
    assert text.count('<li class="same">') == text.count("✓") == text.count("same class: ") == 3
    assert "1 of 3 are of the same class before training and 2 of 3 after it" in Reader(text).text


# --- sentences --------------------------------------------------------------------------------------------------------


def test_where_pixels_win_it_says_so():
    text = Reader(page(REPORT, Album())).text
    assert (
        "The learned features beat the raw pixels in 5 of 6 comparisons; "
        "raw pixels still win with ten nearest neighbours on the mean pooling (84.1 against 83.9 %)." in text
    )


def test_where_pixels_lose_it_says_so():
    text = Reader(page(changed(knn=84.9), Album())).text
    assert "The learned features beat the raw pixels in all 6 comparisons, by 0.8 to 3.2 points." in text
    assert "still win" not in text


def test_where_pixels_win_everything():
    report = copy.deepcopy(REPORT)
    for probes in report["probe"].values():
        for figures in probes.values():
            figures["pretrained"] = 10.0
    text = Reader(page(report, Album())).text
    assert "Raw pixels still win all 6 comparisons, by 62.0 to 74.5 points." in text
    assert "beat" not in text
    assert "The same network before training is nowhere worse." in text


def test_where_the_untrained_network_is_as_good():
    text = Reader(page(changed(knn=69.8), Album())).text
    assert "is no worse with ten nearest neighbours on the mean pooling (69.8 against 69.8 %)." in text


def test_a_draw_is_no_win():
    text = Reader(page(changed(knn=84.1), Album())).text
    assert "beat the raw pixels in 5 of 6 comparisons, 1 is level." in text
    both = Reader(page(changed(knn=84.1, linear=80.0), Album())).text
    assert (
        "beat the raw pixels in 4 of 6 comparisons, 1 is level; raw pixels still win with a linear classifier" in both
    )


def test_beside_the_untrained_network():
    assert (
        "Against the same network before training they gain 4.3 to 21.4 points." in Reader(page(REPORT, Album())).text
    )


@pytest.mark.parametrize(
    ("scratch", "pretrained", "sentence"),
    [
        (61.6, 71.7, "71.7 %, 10.1 points above the same network trained from scratch and 0.3 points below a linear"),
        (61.6, 75.0, "75.0 %, 13.4 points above the same network trained from scratch and 3.0 points above a linear"),
        (61.6, 60.0, "60.0 %, 1.6 points below the same network trained from scratch and 12.0 points below a linear"),
        (61.6, 61.6, "61.6 %, level with the same network trained from scratch"),
    ],
)
def test_finetuning(scratch, pretrained, sentence):
    report = REPORT | {"finetune_100": {"scratch": scratch, "pretrained": pretrained}}
    assert f"Fine-tuned on 100 labels, the network reaches {sentence}" in Reader(page(report, Album())).text


# --- what may be absent, and what may not -----------------------------------------------------------------------------


def test_what_is_absent_is_left_out():
    read = Reader(page(REPORT, Album()))
    assert "±" not in read.text
    assert "uncertain by" not in read.text
    assert "looked at pictures of clothes" in read.text
    assert read.headings == [1, 2, 3, 2, 3, 3, 3]
    assert read.all("img") == []


@pytest.mark.parametrize("key", sorted(MORE))
def test_each_optional_key_alone(key):
    assert Reader(page(REPORT | {key: MORE[key]}, Album())).headings


@pytest.mark.parametrize(
    ("key", "heading"),
    [("curves", "curves"), ("views", "masks"), ("imagined", "predictions"), ("features", "features")],
)
def test_each_part_of_the_album_alone(album, key, heading):
    read = Reader(page(REPORT, Album(**{key: getattr(album, key)})))
    ids = [attributes["id"] for _, attributes in read.attributes if "id" in attributes]
    assert ids == ["result", heading, "again"]


def test_a_report_that_lacks_something_is_refused():
    with pytest.raises(ValueError, match=r"^the report lacks steps, seed$"):
        page({key: value for key, value in REPORT.items() if key not in ("steps", "seed")}, Album())


def test_pictures_that_are_none_are_refused():
    good = png(torch.zeros(1, 1).byte())
    with pytest.raises(ValueError, match=r"^View\.masked\[1\] is not a PNG"):
        View(image=good, masked=(good, b"\xff\xd8"))
    with pytest.raises(ValueError, match=r"^Neighbour\.image is not a PNG"):
        Neighbour(image=b"", name="Bag")


def test_names_are_escaped():
    name = '<script>alert("1")</script>'
    one = Neighbour(image=png(torch.zeros(1, 1).byte()), name=name)
    text = page(
        REPORT | {"recipe": "<b>&"}, Album(neighbours=(Neighbours(query=one, untrained=(one,), pretrained=()),))
    )
    assert "<script" not in text
    read = Reader(text)
    assert f"same class: {name}" in re.sub(r"\s+", " ", read.text)
    assert "d2v pretrain <b>& data.path=photos" in read.text


# --- contrast ---------------------------------------------------------------------------------------------------------


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_text_reads_in_both_schemes():
    style = import_module("d2v.vision.tour.html")._read("report.css")
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)[:2]
    ]
    assert all(len(scheme) == 9 for scheme in schemes)
    for scheme in schemes:
        for text in ("ink", "soft", "link", "accent"):
            for ground in ("paper", "wash"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        # Marks and bars are graphics: 3 is enough.
        for mark in ("grey", "edge"):
            assert contrast(scheme[mark], scheme["paper"]) >= 3, mark
