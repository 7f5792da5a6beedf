"""The page's colours: contrast as the standard requires (WCAG 2, AA)."""

import re
from importlib.resources import files

import pytest


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
    style = files("d2v.vision.demo").joinpath("report.css").read_text()
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
