"""NaN and infinity are refused, with what and whose they are."""

import math

import pytest
import torch
from torch import nn

from d2v.core.finite import NotFiniteError, check_weights, is_finite
from d2v.core.model import Backbone, Batch, Local, ModalityAdapter
from d2v.core.nn import TransformerEncoder
from d2v.core.probes import collect_features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_is_enough(value, dtype):
    x = torch.randn(50, 40).to(dtype)
    assert is_finite(x)
    x[7, 3] = value
    assert not is_finite(x)
    x[9, 3] = -value  # infinities that cancel out
    assert not is_finite(x)


def test_a_sum_that_overflows_is_no_reason():
    assert is_finite(torch.full((100,), 6e4, dtype=torch.float16))
    assert is_finite(torch.full((100,), 3e38))
    assert is_finite(torch.tensor([1, 2]))


def test_weights_are_named_and_counted():
    state = {f"blocks.{i}": torch.full((2,), math.nan if i % 2 else 0.0) for i in range(20)}
    with pytest.raises(ValueError, match=r"run: 10 of 20 tensors .*blocks\.1, .* and 5 more.*checkpoint"):
        check_weights(state, "run")


class Front(nn.Module):
    def forward(self, batch):
        return Local(x=batch.source, padding=None, grid=(batch.source.shape[1],))


@pytest.mark.parametrize("pooling", ["mean", "tokens"])
@pytest.mark.parametrize("layers", ["final", None])
def test_features_name_samples_and_layer(layers, pooling):
    encoder = Backbone(ModalityAdapter(Front()), TransformerEncoder.stack(8, depth=3, num_heads=2, norm="pre"))
    good, bad = torch.zeros(2, 5, 8), torch.full((2, 5, 8), math.inf)
    batches = [Batch(source=x, ids=torch.tensor(ids)) for x, ids in ((good, [4, 9]), (bad, [6, 2]))]
    with pytest.raises(NotFiniteError, match=r"of 2 samples .* 6, 2; try precision=fp32") as raised:
        collect_features(encoder, batches, layers={"some": layers}, poolings=[pooling])
    assert ("'some'" if layers == "final" else "layer 0") in str(raised.value)
    collect_features(encoder, batches[:1], layers={"some": layers}, poolings=[pooling])
