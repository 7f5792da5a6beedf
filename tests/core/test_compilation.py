"""Pieces compile without graph breaks and give what they give uncompiled.

"eager" traces as the real compiler does, but needs no C++ compiler; `nox -s compile` runs the rest.
"""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from building import FORMER, NEW, adapted, padding_of, random_mask, randomise, toy_batch
from torch.nn.attention import flex_attention

from d2v.core.loss import RegressionLoss
from d2v.core.model import AlibiConfig, ContextConfig, MultimaskBatcher
from d2v.core.nn import Alibi, ConvDecoder, TransformerBlock, kernels
from d2v.core.teacher import TargetAverager

DIM = 8
BACKENDS = {"eager": (), "inductor": pytest.mark.inductor}
backends = pytest.mark.parametrize("backend", [pytest.param(name, marks=marks) for name, marks in BACKENDS.items()])


@pytest.fixture(autouse=True)
def forget_compiled() -> None:
    torch.compiler.reset()


def same(compiled, plain, *inputs):
    """Equal results and equal gradients."""
    inputs = [x.requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs]
    floating = [x for x in inputs if torch.is_tensor(x) and x.requires_grad]
    found = []
    for function in (compiled, plain):
        torch.manual_seed(2)
        y = function(*inputs)
        ys = y if isinstance(y, tuple) else (y,)
        generator = torch.Generator().manual_seed(0)
        loss = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in ys)
        found.append([*ys, *torch.autograd.grad(loss, floating)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@backends
@pytest.mark.parametrize("norm", ["post", "pre", "pre_lossy"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_blocks(backend, norm, biased, padded, mode):
    block = TransformerBlock(DIM, num_heads=2, norm=norm, layer_scale=0.1, qkv_bias="qv")
    randomise(block, std=0.1).train(mode == "train")
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    bias, padding = torch.randn(3, 2, 5, 5) if biased else None, padding_of([5, 4, 2], 5) if padded else None
    same(compiled, block, torch.randn(3, 5, DIM), bias, padding)


@backends
def test_blocks_with_dropouts(backend):
    block = TransformerBlock(DIM, num_heads=2, dropout=0.1, drop_path_rate=0.2, attention_dropout=0.1)
    out, branch = torch.compile(block, fullgraph=True, backend=backend)(torch.randn(3, 5, DIM))
    assert out.isfinite().all()
    assert branch.isfinite().all()


# Dynamo asks a tensor that is no leaf for its gradient, and hides its own warning only if it is no error.
not_a_leaf = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@not_a_leaf
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("backend", "form"),
    [
        *(pytest.param(b, f, marks=m) for f in ("lean", "products", "fused") for b, m in BACKENDS.items()),
        ("eager", "distances"),  # the compiler does not train with this form on a CPU
        pytest.param("aot_eager", "distances", marks=pytest.mark.inductor),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_blocks_with_a_bias_by_distance(monkeypatch, backend, form, dropout):
    if dropout > 0 and (form == "products" or backend == "inductor"):
        pytest.skip("products have no dropout, and compiled code draws other random numbers")
    monkeypatch.setattr(kernels, "attention_form", lambda *_: form)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    block = randomise(TransformerBlock(DIM, num_heads=2, attention_dropout=dropout), std=0.3)
    alibi = Alibi(2)
    tokens = SimpleNamespace(position=torch.tensor([[0, 2, 3, 7], [1, 4, 5, 9]]), grid=(12,), num_prefix_tokens=1)
    scales, padding = alibi.scale.detach(), padding_of([5, 3], 5)

    def run(block):
        def attended(x, scale):
            slopes = alibi.slopes * scale[0].clamp(min=0)
            return block(x, dataclasses.replace(alibi(tokens)(0), slopes=slopes), padding)

        return attended

    same(run(torch.compile(block, fullgraph=True, backend=backend)), run(block), torch.randn(2, 5, DIM), scales)


@backends
@pytest.mark.parametrize("grid", [(6,), (2, 3)])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 4])
def test_decoder(backend, grid, indexed, kernel_size):
    decoder = ConvDecoder(DIM, decoder_dim=DIM, num_layers=2, kernel_size=kernel_size, groups=2, dims=len(grid))
    compiled = torch.compile(decoder, fullgraph=True, backend=backend)
    same(compiled, decoder, torch.randn(4, 6, DIM), grid, torch.tensor([0, 3, 7, 20]) if indexed else None)


@backends
@pytest.mark.parametrize(
    ("step", "rows"), [(s, r) for s in ("visible", "hidden") for r in (1, 3, 6)] + [("scatter", 6)]
)
def test_gather_and_scatter(backend, step, rows):
    mask = random_mask(3, 2, 7, 4)
    assert (len(mask.visible), len(mask.index)) == (6, 24)  # found outside the compiled region, as a training step does
    method = getattr(MultimaskBatcher(mask), step)
    same(
        torch.compile(method, fullgraph=True, backend=backend),
        method,
        torch.randn(rows, 3 if step == "scatter" else 7, DIM),
    )


@backends
@pytest.mark.parametrize("each", [(), ("instance",), ("batch", "group", "layer")])
def test_targets(backend, each):
    def average(averager, *results):
        for layer, result in enumerate(results):
            averager(layer, result, 1)
        return averager.finish()

    averagers = [TargetAverager(range(3), each=each, after=["layer", "instance"]) for _ in range(2)]
    compiled = torch.compile(average, fullgraph=True, backend=backend)
    for _ in range(2):
        results = [torch.randn(2, 6, DIM) for _ in range(3)]
        with torch.no_grad():
            torch.testing.assert_close(compiled(averagers[0], *results), average(averagers[1], *results))


@backends
@pytest.mark.parametrize("options", [{}, {"beta": 1.0}, {"reduction": "mean", "variance_weight": 0.1}])
def test_loss(backend, options):
    loss = RegressionLoss(**options)

    def total(predictions, targets):
        return loss(predictions, targets)[0]

    same(torch.compile(total, fullgraph=True, backend=backend), total, torch.randn(9, DIM), torch.randn(9, DIM))


@not_a_leaf
@backends
@pytest.mark.parametrize("config", [NEW, FORMER], ids=["2.0", "1.0"])
def test_a_step_with_blocks_compiled_one_by_one(backend, config):
    config = adapted(config, extra_tokens=1, alibi=AlibiConfig(), context=ContextConfig(depth=1))
    plain = randomise(config.build(), std=0.1)
    compiled = copy.deepcopy(plain)
    for backbone in (compiled.student, compiled.teacher.module):
        for block in backbone.blocks():
            block.compile(backend=backend, fullgraph=True)
    for update in range(2):
        batch = toy_batch(3, 8, padding=padding_of([8, 7, 6], 8))
        losses = []
        for model in (compiled, plain):
            model.zero_grad()
            out = model(batch, update=update)
            out.loss_sum.backward()
            losses.append(out.loss_sum)
        torch.testing.assert_close(*losses)
        theirs = dict(plain.named_parameters())
        for name, parameter in compiled.named_parameters():  # compiling in place changes no name
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-4, rtol=1e-3)
