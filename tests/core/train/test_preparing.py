"""Blocks that are computed again or compiled train as others do."""

from functools import partialmethod

import attrs
import pytest
import torch
from building import FORMER, NEW, adapted, toy_batch
from torch._dynamo.utils import counters

from d2v.core.model import AlibiConfig
from d2v.core.train import MemorySource, PublishedAdamW, fit, parameter_groups
from d2v.core.train.preparing import checkpoint_activations, compile_blocks

REGULARISED = {"layer_drop": 0.3, "dropout": 0.1, "drop_path_rate": 0.2}


def regularised(config):
    """The configuration with all the randomness that an encoder has."""
    encoder = config.student.encoder
    block = attrs.evolve(encoder.block, dropout=0.1, attention_dropout=0.1)
    encoder = attrs.evolve(encoder, block=block, **REGULARISED)
    return attrs.evolve(config, student=attrs.evolve(config.student, encoder=encoder))


def trained(config, switch, batches, *, max_steps=3, hooks=()):
    torch.manual_seed(0)
    model = config.build()
    switch(model)
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.01, decay="matrices"), lr=1e-2)
    source = MemorySource(batches, seed=None)
    options = {"max_steps": max_steps, "accumulate": 2, "hooks": hooks}
    fit(model, source, optimizer=optimizer, schedule=lambda _: 1e-2, **options)
    return model.state_dict()


@pytest.mark.parametrize("config", [NEW, FORMER], ids=["new", "former"])
def test_recomputed_blocks_give_the_same_weights(config):
    config, batches = regularised(config), [toy_batch() for _ in range(2)]
    calls = []

    def counted(model):
        checkpoint_activations(model)
        block = model.student.encoder.blocks[0]
        block.register_forward_pre_hook(lambda _, given: calls.append(given[0].requires_grad))

    plain, again = trained(config, lambda model: None, batches), trained(config, counted, batches)
    assert plain.keys() == again.keys()
    for name, tensor in plain.items():
        assert torch.equal(tensor, again[name]), name
    assert all(calls)
    once = []
    trained(
        config,
        lambda model: model.student.encoder.blocks[0].register_forward_pre_hook(lambda *_: once.append(1)),
        batches,
    )
    assert len(calls) == 2 * len(once) > 0


def test_recomputed_blocks_make_the_bias_that_they_share_themselves():
    config, batches = adapted(NEW, alibi=AlibiConfig()), [toy_batch() for _ in range(2)]
    for one in (config, regularised(config)):  # two forms of attention
        plain, again = trained(one, lambda model: None, batches), trained(one, checkpoint_activations, batches)
        for name, tensor in plain.items():
            torch.testing.assert_close(again[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


def test_evaluation_computes_blocks_once():
    model = NEW.build()
    checkpoint_activations(model)
    calls = []
    model.student.encoder.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.eval().student.encode(toy_batch()).x.sum().backward()
    assert len(calls) == 1


# Dynamo asks a tensor that is no leaf for its gradient, and hides its own warning only if it is no error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.inductor
def test_compiled_blocks_train_the_same_and_compile_once_a_form():
    torch.compiler.reset()
    batches = [toy_batch() for _ in range(2)]
    plain = trained(NEW, lambda model: None, batches)
    compiled = trained(NEW, compile_blocks, batches)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    model = NEW.build()
    compile_blocks(model)
    for length in (8, 12, 10, 14, 9):
        if length == 10:  # any length is compiled by now
            before = counters["stats"]["unique_graphs"]
        for _ in range(2):
            model(toy_batch(t=length), update=0).loss_sum.backward()
    assert counters["stats"]["unique_graphs"] == before


# Dynamo asks a tensor that is no leaf for its gradient, and hides its own warning only if it is no error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("config", [NEW, FORMER], ids=["2.0", "1.0"])
def test_nothing_is_compiled_again_after_the_first_update(monkeypatch, config):
    """Traced as for the compiler, without a C++ compiler."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    seen = []

    class Graphs:
        def on_step_end(self, step):
            seen.append(counters["stats"]["unique_graphs"])

    trained(config, compile_blocks, [toy_batch() for _ in range(3)], max_steps=4, hooks=[Graphs()])
    assert 0 < seen[0] == seen[-1]


@pytest.mark.parametrize("switch", [compile_blocks, checkpoint_activations])
def test_a_model_without_blocks(switch):
    with pytest.raises(ValueError, match="Linear"):
        switch(torch.nn.Linear(1, 1))


def test_names_stay():
    plain, other = NEW.build(), NEW.build()
    compile_blocks(other)
    checkpoint_activations(other)
    assert other.state_dict().keys() == plain.state_dict().keys()
