"""The report page: complete, well-formed, correct, and readable with any subset of its content."""

import copy
import re
from base64 import b64decode
from io import BytesIO
from itertools import pairwise

import pytest
import torch

from d2v.vision.demo import FeatureMaps, MaskedViews, Neighbour, Neighbours, Prediction, ReportImages, page

pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")
bs4 = pytest.importorskip("bs4")

CURVES = """<svg role="img" aria-label="Loss" viewBox="0 0 640 200"><g fill="none" stroke="currentColor">
<path d="M40 10V170H630"/>
<path d="M40 20L90 110 150 135 260 150 400 156 630 160" stroke="#2a8f85" stroke-width="2"/></g>
<text x="40" y="190" fill="currentColor" font-size="12">updates</text></svg>"""

REPORT = {
    "probe": {
        "mean": {
            "knn": {"pixels": 84.1, "untrained": 69.8, "pretrained": 83.9},
            "linear": {"pixels": 84.5, "untrained": 74.9, "pretrained": 86.0},
            "linear_100": {"pixels": 72.0, "untrained": 51.6, "pretrained": 73.0},
        },
        "grid": {
            "knn": {"pixels": 84.1, "untrained": 79.8, "pretrained": 85.5},
            "linear": {"pixels": 84.5, "untrained": 83.4, "pretrained": 87.7},
            "linear_100": {"pixels": 72.0, "untrained": 65.1, "pretrained": 74.8},
        },
    },
    "finetune_100": {"scratch": 61.6, "pretrained": 71.7},
    "lead": {
        "probe": {
            "mean": {
                "knn": {"pixels": (-0.2, 0.05), "untrained": (14.1, 0.9)},
                "linear": {"pixels": (1.5, 0.6), "untrained": (11.1, 0.9)},
                "linear_100": {"pixels": (1.0, 0.4), "untrained": (21.4, 0.8)},
            },
            "grid": {
                "knn": {"pixels": (1.4, 0.6), "untrained": (5.7, 0.7)},
                "linear": {"pixels": (3.2, 0.5), "untrained": (4.3, 0.5)},
                "linear_100": {"pixels": (2.8, 0.9), "untrained": (9.7, 0.9)},
            },
        },
        "finetune_100": {"scratch": (10.1, 1.5), "pixels": (-0.3, 1.4)},
    },
    "seconds": 297.4,
    "steps": 7000,
    "images_seen": 56000,
    "device": "cpu",
    "seed": 0,
    "recipe": "vision/small",
}


def with_names(leads):
    """Pairs as the report has them."""
    if isinstance(leads, tuple):
        return dict(zip(("points", "error"), leads, strict=True))
    return {name: with_names(one) for name, one in leads.items()}


REPORT["lead"] = with_names(REPORT["lead"])
MORE = {
    "std": {
        "probe": {
            "mean": {"linear_100": {"pixels": 2.2, "untrained": 1.0, "pretrained": 0.9}},
            "grid": {"linear_100": {"pixels": 2.2, "untrained": 1.1, "pretrained": 2.0}},
        },
        "finetune_100": {"scratch": 2.8, "pretrained": 1.8},
    },
    "seconds_of": {"pretraining": 240.1, "probing": 30.2, "fine-tuning": 20.0, "drawing": 7.1},
    "samples": {"train": 10000, "test": 2000},
    "version": "0.1.0",
}


def png(*shape):
    """A noise image, `h w` or `h w 3`."""
    stream = BytesIO()
    Image.fromarray(torch.randint(256, shape, dtype=torch.uint8).numpy()).save(stream, "PNG")
    return stream.getvalue()


def pngs(n):
    return tuple(png(28, 28) for _ in range(n))


def neighbour(name):
    return Neighbour(image=png(28, 28), name=name)


@pytest.fixture(scope="module")
def images():
    """Six of everything: eight views of an image, and six neighbours before and after."""
    names = ("image", "masked", "predicted", "target")
    six = tuple(map(neighbour, ("Bag", "Shirt", "Bag", "Coat", "Bag", "Bag")))
    return ReportImages(
        curves=CURVES,
        views=tuple(MaskedViews(image=png(28, 28), masked=pngs(8)) for _ in range(6)),
        predictions=tuple(Prediction(**dict(zip(names, pngs(4), strict=True))) for _ in range(6)),
        features=tuple(
            FeatureMaps(image=png(28, 28), untrained=png(4, 4, 3), pretrained=png(4, 4, 3)) for _ in range(6)
        ),
        neighbours=tuple(Neighbours(query=neighbour("Bag"), untrained=six, pretrained=six) for _ in range(6)),
    )


def changed(**values):
    """The report with other accuracies of the pretrained network under mean pooling, by probe."""
    report = copy.deepcopy(REPORT)
    for probe, pretrained in values.items():
        report["probe"]["mean"][probe]["pretrained"] = pretrained
    return report


def parsed(report, images=None):
    return bs4.BeautifulSoup(page(report, ReportImages() if images is None else images), "html.parser")


def words(soup):
    return " ".join(soup.body.get_text().split())


def is_closed(text):
    """Whether elements end where the parser, which corrects errors, ends them."""

    def ends(tag):
        for child in tag.find_all(recursive=False):
            yield from ends(child)
            if not child.can_be_empty_element:
                yield child.name

    written = re.findall(r"</(\w+)>|<(\w+)[^>]*/>", text)
    return [end or alone for end, alone in written] == list(ends(bs4.BeautifulSoup(text, "html.parser")))


@pytest.mark.parametrize(
    ("text", "closed"),
    [("<p><b>a</b><img></p><i/>", True), ("<p><b>a</p>", False), ("<p>", False), ("<b><i></b></i>", False)],
)
def test_what_is_open_is_seen(text, closed):
    assert is_closed(text) == closed


def test_everything_is_closed_and_in_order(images):
    assert is_closed(page(REPORT | MORE, images))
    soup = parsed(REPORT | MORE, images)
    levels = [int(heading.name[1]) for heading in soup.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert soup.html["lang"] == "en"
    assert soup.find("meta", attrs={"name": "viewport"})["content"] == "width=device-width, initial-scale=1"
    ids = [tag["id"] for tag in soup.select("[id]")]
    assert len(ids) == len(set(ids))
    assert {tag["aria-labelledby"] for tag in soup.select("[aria-labelledby]")} <= set(ids)
    assert {link["href"][1:] for link in soup.select('a[href^="#"]')} <= set(ids)


def test_nothing_is_fetched(images):
    soup = parsed(REPORT | MORE, images)
    sources = [tag["src"] for tag in soup.select("[src]")]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for tag in soup.select("[href]"):
        assert tag.name == "a"
        assert re.fullmatch(r"#\w+|https://arxiv\.org/abs/\d{4}\.\d{5}", tag["href"])
    assert not soup.select("script, link, iframe, object, [srcset]")
    assert not re.search(r"@import|url\(", str(soup))


def test_images_have_alt_texts(images):
    images = parsed(REPORT | MORE, images).find_all("img")
    assert len(images) == 6 * (9 + 4 + 3 + 13)
    named = [image["alt"] for image in images if image["alt"]]
    assert "Image 2, view 8 of 8, hidden patches blanked" in named
    # An empty alt text only where the caption names the image.
    below = [image.parent.figcaption.get_text(strip=True) for image in images if not image["alt"]]
    assert len(below) == 6 * 13
    assert all(below)


def test_the_image_is_the_one_in_the_report_images(images):
    assert b64decode(parsed(REPORT, images).img["src"].partition(",")[2]) == images.views[0].image


def test_results_are_there(images):
    text = words(parsed(REPORT | MORE, images))
    for number in ("84.1", "69.8", "83.9", "61.6", "71.7", "±2.2", "±2.8", "7,000", "56,000", "10,000", "4 min 57 s"):
        assert number in text
    assert "d2v quickstart --out again --steps 7000 --seed 0" in text
    assert "4 min 0 s" in text  # pretraining alone
    assert "each about 6 times" in text


def test_every_row_has_pixels_and_untrained():
    rows = parsed(REPORT).table.select("tbody tr:not(.group)")
    assert len(rows) == 7
    for row in rows:
        assert [bool(re.search(r"\d+\.\d", cell.get_text())) for cell in row.find_all("td")] == [True] * 3


def marked(report):
    return [re.fullmatch(r"★best: (\d+\.\d)", best.get_text())[1] for best in parsed(report).select("td b")]


def test_the_best_of_a_row_is_marked_without_colour():
    assert marked(REPORT) == ["84.1", "85.5", "86.0", "87.7", "73.0", "74.8", "72.0"]
    assert marked(changed(knn=84.09))[:2] == ["84.1", "84.1"]  # equals


def test_neighbours_of_the_same_class_are_marked():
    bag, shoe = neighbour("Bag"), neighbour("Sneaker")
    one = Neighbours(query=bag, untrained=(bag, shoe, shoe), pretrained=(bag, bag, shoe))
    soup = parsed(REPORT, ReportImages(neighbours=(one,)))
    same = soup.select("li.same")
    assert ["".join(one.get_text().split()) for one in same] == ["✓sameclass:Bag"] * 3
    assert words(soup).count("✓") == 3
    assert "1 of 3 are of the same class before training and 2 of 3 after it" in words(soup)


def with_leads(*leads, other="pixels"):
    """The report with these leads of the six comparisons."""
    report = copy.deepcopy(REPORT)
    places = [report["lead"]["probe"][pooling][probe] for probe in ("knn", "linear") for pooling in ("mean", "grid")]
    for place, one in zip(places, leads, strict=False):
        place[other] = with_names(one)
    return report


LEVEL = (0.4, 0.5)


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        (
            [],
            "ahead of the raw pixels in 5 of 6 comparisons, by 1.0 to 3.2 points, and behind in 1 (ten nearest "
            "neighbours on the mean pooling, 83.9 against 84.1 %).",
        ),
        ([], "They are ahead of those of the untrained network in all 6 comparisons, by 4.3 to 21.4 points."),
        ([(0.8, 0.3)], "The learned features are ahead of the raw pixels in all 6 comparisons, by 0.8 to 3.2 points."),
        ([LEVEL], "ahead of the raw pixels in 5 of 6 comparisons, by 1.0 to 3.2 points, and level in 1."),
        ([LEVEL, (-0.9, 0.5), (-1.1, 0.5)], "level in 2 and behind in 1 (a linear classifier with all labels on"),
    ],
)
def test_it_says_who_is_ahead(leads, said):
    assert said in words(parsed(with_leads(*leads)))


@pytest.mark.parametrize(
    ("lead", "said"),
    [
        ((-62.0, 1.0), "The learned features are behind the raw pixels in all 6 comparisons, by 62.0 points."),
        ((0.9, 0.5), "The learned features are level with the raw pixels in all 6 comparisons."),
        ((0.0, 0.0), "The learned features are level with the raw pixels in all 6 comparisons."),
    ],
)
def test_where_all_comparisons_are_alike(lead, said):
    report = copy.deepcopy(REPORT)
    for probes in report["lead"]["probe"].values():
        for one in probes.values():
            one["pixels"] = with_names(lead)
    text = words(parsed(report))
    assert said in text
    assert "two standard errors" in text


@pytest.mark.parametrize(
    ("scratch", "pixels", "said"),
    [
        (
            (10.1, 1.5),
            (-0.3, 1.4),
            "ahead of the same network trained from scratch by 10.1 points and level with a linear",
        ),
        ((13.4, 1.5), (3.0, 1.4), "from scratch by 13.4 points and ahead of a linear"),
        ((-4.0, 1.5), (-12.0, 1.4), "behind the same network trained from scratch by 4.0 points and behind a linear"),
    ],
)
def test_finetuning(scratch, pixels, said):
    report = REPORT | {"lead": {"finetune_100": with_names({"scratch": scratch, "pixels": pixels})}}
    assert "Fine-tuned on 100 labels, the network reaches 71.7 %" in words(parsed(report))
    assert said in words(parsed(report))


def test_what_is_absent_is_left_out():
    soup = parsed(REPORT)
    assert not re.search("±|uncertain by", words(soup))
    assert "pretrained on images of clothes" in words(soup)
    assert [tag.name for tag in soup.find_all(re.compile("^h[1-6]$"))] == ["h1", "h2", "h3", "h2", "h3", "h3", "h3"]
    assert not soup.find_all("img")


@pytest.mark.parametrize("key", sorted(MORE))
def test_each_optional_key_alone(key):
    assert is_closed(page(REPORT | {key: MORE[key]}, ReportImages()))


@pytest.mark.parametrize(
    ("key", "heading"),
    [
        ("curves", "curves"),
        ("views", "masks"),
        ("predictions", "predictions"),
        ("features", "features"),
        ("neighbours", "neighbours"),
    ],
)
def test_each_part_of_the_album_alone(images, key, heading):
    soup = parsed(REPORT, ReportImages(**{key: getattr(images, key)}))
    assert [tag["id"] for tag in soup.select("[id]")] == ["result", heading, "again"]


def test_a_report_that_lacks_something_is_refused():
    with pytest.raises(ValueError, match=r"steps, seed$"):
        page({key: value for key, value in REPORT.items() if key not in ("steps", "seed")}, ReportImages())


def test_other_files_than_pngs_are_refused():
    with pytest.raises(ValueError, match=r"MaskedViews\.masked\[1\].*PNG"):
        MaskedViews(image=png(1, 1), masked=(png(1, 1), b"\xff\xd8"))
    with pytest.raises(ValueError, match=r"Neighbour\.image.*PNG"):
        Neighbour(image=b"", name="Bag")


def test_names_are_escaped():
    one = neighbour('<script>alert("1")</script>')
    soup = parsed(
        REPORT | {"recipe": "<b>&"}, ReportImages(neighbours=(Neighbours(query=one, untrained=(one,), pretrained=()),))
    )
    assert not soup.find("script")
    assert f"same class: {one.name}" in words(soup)
    assert "d2v pretrain <b>& data.path=photos" in words(soup)
