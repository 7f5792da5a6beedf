"""Recordings sorted by length, with compiled blocks: each length is compiled once at most, and few are.

Blocks are traced as for the compiler, but need no C++ compiler ("eager").
"""

from functools import partialmethod

import attrs
import pytest
import torch
from building import padding_of
from speech import student
from torch import nn
from torch._dynamo.utils import counters

from d2v.core.masks import SpanMasker
from d2v.core.model import Batch, ConvDecoderConfig, Data2VecConfig, MaskedHeadConfig, TargetsConfig, TeacherConfig
from d2v.core.teacher import EMASchedule
from d2v.core.train import MemorySource, PublishedAdamW, fit, parameter_groups
from d2v.core.train.preparing import compile_blocks

# All on one side of the lengths at which another form of attention is faster.
BUCKETS = [(4, 760), (3, 900), (2, 1_200), (5, 700), (3, 840)]  # recordings and samples


def model(former: bool) -> Data2VecConfig:
    decoder = ConvDecoderConfig(decoder_dim=16, num_layers=1, kernel_size=3, groups=4)
    return Data2VecConfig(
        student=attrs.evolve(student(former=former), visible_only=not former),
        predictors={"audio": MaskedHeadConfig() if former else decoder},
        maskers={"audio": SpanMasker(mask_prob=0.5, mask_length=2)},
        targets=TargetsConfig(layers=1),
        teacher=TeacherConfig(schedule=EMASchedule(0.9)),
        num_masks=1 if former else 2,
    )


def bucket(rows: int, samples: int, *, padded: bool) -> Batch:
    lengths = [samples] * (rows - 1) + [samples - (40 if padded else 0)]
    return Batch(source=torch.randn(rows, samples), padding=padding_of(lengths, samples) if padded else None)


# Dynamo asks a tensor that is no leaf for its gradient, and hides its own warning only if it is no error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("former", "padded"),
    [
        pytest.param(False, True, id="2.0"),
        pytest.param(True, False, id="1.0", marks=pytest.mark.inductor),
        pytest.param(True, True, id="1.0, padded", marks=pytest.mark.inductor),
    ],
)
def test_two_buckets_are_compiled_and_serve_all_others(
    monkeypatch: pytest.MonkeyPatch, former: bool, padded: bool
) -> None:
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    graphs: list[int] = []

    class Count:
        def on_step_end(self, step: int) -> None:
            graphs.append(counters["stats"]["unique_graphs"])

    one = model(former).build()
    compile_blocks(one)
    fit(
        one,
        MemorySource([bucket(*size, padded=padded) for size in BUCKETS], seed=None),
        optimizer=PublishedAdamW(parameter_groups(one, weight_decay=0.01)),
        schedule=lambda _: 1e-3,
        max_steps=2 * len(BUCKETS),
        hooks=[Count()],
    )
    student_and_teacher = 2
    assert graphs[0] <= student_and_teacher
    assert graphs[1] <= 2 * student_and_teacher
    assert graphs[-1] == graphs[1]
