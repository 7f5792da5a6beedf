"""What is collected from an encoder equals what it encodes, in any batches, and the encoder is unchanged."""

import dataclasses

import pytest
import torch
from building import DIM, NEW, adapted, padding_of, random_mask, randomise, toy_batch
from torch import nn

from d2v.core.model import Batch, Encoded
from d2v.core.nn import LayerFeatures
from d2v.core.probes import POOLINGS, collect_features, encode_layers, pool_layer, raw_features

DEPTH = NEW.student.encoder.depth


def backbone(extra_tokens=1, **options):
    return randomise(adapted(NEW, extra_tokens=extra_tokens, **options).build().student)


def pieces(batch, sizes):
    """The samples of a batch in batches of other sizes."""
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        fields = {name: getattr(batch, name) for name in ("padding", "ids", "labels")}
        yield Batch(source=batch.source[part], **{n: v if v is None else v[part] for n, v in fields.items()})
        start += size


def direct(encoder, batch, layers, pooling):
    encoder.eval()
    sink = LayerFeatures(range(DEPTH), kind="block")
    encoded = encoder.encode(batch, sink=sink)
    result = torch.stack([sink.results[layer] for layer in layers]).mean(0)
    read = pool_layer(
        result, pooling, num_prefix_tokens=encoded.num_prefix_tokens, grid=encoded.grid, padding=encoded.padding
    )
    return read.detach()


@pytest.mark.parametrize("padded", [False, True])
def test_equals_encoding_directly_whatever_the_batch_size(padded):
    encoder = backbone()
    padding = padding_of([9, 9, 4, 9, 6, 2, 9], 9) if padded else None
    batch = toy_batch(7, 9, padding=padding, ids=torch.arange(7) + 40, labels=torch.arange(7) % 3)
    choices = {"all": None, "first": [0], "last two": [-1, 1]}
    for sizes in ([7], [3, 4], [2, 1, 1, 3]):
        found = collect_features(encoder, pieces(batch, sizes), poolings=POOLINGS, layers=choices)
        assert found.ids.tolist() == list(range(40, 47))
        assert torch.equal(found.labels, batch.labels)
        assert found.grid == (9,)
        assert (found.padding is None) if not padded else torch.equal(found.padding, padding)
        for name, layers in {"all": range(DEPTH), "first": [0], "last two": [2, 1]}.items():
            assert list(found.values[name]) == list(POOLINGS)
            for pooling, x in found.values[name].items():
                assert x.dtype == torch.float32
                assert not x.requires_grad
                torch.testing.assert_close(x, direct(encoder, batch, layers, pooling), atol=1e-5, rtol=1e-4)


def test_the_final_output_is_read_behind_the_last_norm():
    encoder = backbone()
    encoder.encoder.norm_out = randomise(nn.LayerNorm(DIM))
    batch = toy_batch(3, 6, padding=padding_of([6, 4, 2], 6))
    choices = {"final": "final", "last": -1}
    found = collect_features(encoder, [batch], poolings=["tokens", "mean"], layers=choices)
    with torch.no_grad():
        expected = encoder.eval().encode(batch).x[:, 1:].masked_fill(found.padding[..., None], 0)
    assert torch.equal(found.values["final"]["tokens"], expected)
    torch.testing.assert_close(found.values["last"]["tokens"], direct(encoder, batch, [2], "tokens"))
    assert not torch.allclose(found.values["last"]["mean"], found.values["final"]["mean"])


def test_feed_forward_branches_are_read_as_targets_read_them():
    encoder, batch = backbone().eval(), toy_batch()
    sink = LayerFeatures([0, 2], kind="ffn")
    encoder.encode(batch, sink=sink)
    found = collect_features(encoder, [batch], poolings=["tokens"], layers={"two": [0, -1]}, result="ffn")
    expected = (sink.results[0] + sink.results[2])[:, 1:] / 2
    torch.testing.assert_close(found.values["two"]["tokens"], expected)


def test_one_layer_and_all_layers_have_short_names():
    encoder, batch = backbone(), toy_batch()
    choices = {"one": 1, "listed": [1], "all": "all", "none": None}
    found = collect_features(encoder, [batch], layers=choices).values
    assert torch.equal(found["one"]["mean"], found["listed"]["mean"])
    assert torch.equal(found["all"]["mean"], found["none"]["mean"])
    assert not torch.equal(found["one"]["mean"], found["all"]["mean"])


def test_patches_of_sequences_are_padded_to_the_longest():
    encoder = backbone()
    batches = [toy_batch(2, 5), toy_batch(1, 8), toy_batch(2, 6, padding=padding_of([6, 3], 6))]
    found = collect_features(encoder, batches, poolings=["tokens", "mean"])
    assert found.values["all"]["tokens"].shape == (5, 8, DIM)
    assert torch.equal(found.padding, padding_of([5, 5, 8, 6, 3], 8))
    assert found.values["all"]["tokens"][found.padding].abs().max() == 0
    assert found.grid == (8,)
    torch.testing.assert_close(
        found.values["all"]["tokens"][:2, :5], direct(encoder, batches[0], range(DEPTH), "tokens")
    )
    assert collect_features(encoder, batches).padding is None


def test_ids_are_places_in_the_pass_where_there_are_none():
    found = collect_features(backbone(), [toy_batch(2), toy_batch(3)])
    assert found.ids.tolist() == [0, 1, 2, 3, 4]
    assert found.labels is None
    with pytest.raises(ValueError, match="no labels"):
        found.labelled()


def test_masks_of_batches_hide_nothing():
    encoder, batch = backbone(), toy_batch(3, 8)
    masked = dataclasses.replace(batch, mask=random_mask(3, 2, 8, 4))
    plain, other = (collect_features(encoder, [one]).values["all"]["mean"] for one in (batch, masked))
    assert torch.equal(plain, other)


def test_every_part_gets_its_own_mode_back():
    encoder = backbone()
    encoder.train()
    encoder.encoder.blocks[1].eval()
    encoder.encoder.layer_drop = 0.9
    modes = [part.training for part in encoder.modules()]
    batch = toy_batch()
    found = []
    for features in encode_layers(encoder, [batch, batch]):
        assert [part.training for part in encoder.modules()] == modes
        found.append(features.values["all"]["mean"])
    for mean in found:
        torch.testing.assert_close(mean, direct(encoder, batch, range(DEPTH), "mean"))
    encoder.train()
    with pytest.raises(RuntimeError):
        collect_features(encoder, [toy_batch(width=99)])
    assert all(part.training for part in encoder.modules())


def test_nothing_but_what_is_wanted_runs():
    encoder = backbone()
    encoder.encoder.norm_out = nn.LayerNorm(DIM)
    ran = []
    for name, part in {**dict(enumerate(encoder.encoder.blocks)), "out": encoder.encoder.norm_out}.items():
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
    collect_features(encoder, [toy_batch()], layers={"second": [1], "first": [-3]})
    assert ran == [0, 1]
    ran.clear()
    collect_features(encoder, [toy_batch()])
    assert ran == [0, 1, 2]
    ran.clear()
    collect_features(encoder, [toy_batch()], layers={"first": 0, "final": "final"})
    assert ran == [0, 1, 2, "out"]


def test_one_pass_over_the_data():
    taken = []
    batches = (taken.append(i) or toy_batch() for i in range(3))
    collect_features(backbone(), batches, poolings=POOLINGS, layers={str(i): [i] for i in range(DEPTH)})
    assert taken == [0, 1, 2]


class Doubler(nn.Module):
    """A third-party encoder: layer i gives the input times 2 ** i."""

    def encode(self, batch, mask=None, *, local=None, tokens=None, sink=None):
        self.autocast = torch.is_autocast_enabled("cpu")
        for layer in sorted(sink.wants)[:2]:
            sink(layer, batch.source * 2**layer, 0)
        return Encoded(x=batch.source, padding=None, num_prefix_tokens=0, grid=(batch.source.shape[1],))


def test_anybodys_encoder_serves():
    encoder, batch = Doubler(), toy_batch(2, 4, width=5)
    found = collect_features(encoder, [batch], layers={"two": [1, -1]}, depth=3, precision="bf16")
    torch.testing.assert_close(found.values["two"]["mean"], batch.source.mean(1) * 3)
    assert encoder.autocast
    collect_features(encoder, [batch], layers={"two": [1]}, depth=3)
    assert not encoder.autocast
    with pytest.raises(ValueError, match=r"Doubler .*depth"):
        encode_layers(encoder, [batch])
    final = collect_features(encoder, [batch], layers={"final": "final"}).values["final"]["mean"]
    torch.testing.assert_close(final, batch.source.mean(1))
    with pytest.raises(ValueError, match="layer 2"):
        collect_features(encoder, [batch], depth=3)


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_batches_go_where_the_encoder_is(device, monkeypatch):
    gone = []
    original = Batch.to
    monkeypatch.setattr(Batch, "to", lambda self, device: gone.append(device) or original(self, device))
    collect_features(backbone(), [toy_batch(), toy_batch()], device=device)
    assert gone == [torch.device("cpu")] * 2


def test_bf16_is_near_and_is_read_in_float32():
    encoder, batch = backbone(), toy_batch()
    fine, rough = (
        collect_features(encoder, [batch], poolings=POOLINGS, precision=precision).values["all"]
        for precision in ("fp32", "bf16")
    )
    for pooling in POOLINGS:
        assert rough[pooling].dtype == torch.float32
        error = (rough[pooling] - fine[pooling]).abs().max()
        assert 0 < error < 0.1 * fine[pooling].abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_layers_of_any_precision_are_averaged_in_float32(dtype):
    batch = toy_batch(2, 4, width=5)
    batch = dataclasses.replace(batch, source=batch.source.to(dtype))
    mean = collect_features(Doubler(), [batch], layers={"two": [0, 1]}, depth=2).values["two"]["mean"]
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, batch.source.float().mean(1) * 1.5)


def test_labels_that_are_not_one_number_a_sample_are_left_out():
    for labels in (torch.zeros(3, 5).long(), torch.rand(3)):
        assert collect_features(backbone(), [toy_batch(labels=labels)]).labels is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poolings": ["mean", "gird"]}, "pooling='gird'.*mean 'grid'"),
        ({"layers": {"a": [3]}}, "layer 3 does not exist: the encoder has layers 0 to 2, or -3 to -1 from the end"),
        ({"layers": {"a": [-4]}}, "layer -4 does not exist"),
        ({"layers": {"a": [2, -1]}}, "layers 'a' must be distinct, at least one, not \\[2, 2\\]"),
        ({"layers": {"a": []}}, "at least one"),
        ({"layers": {"a": 3}}, "layer 3 does not exist"),
        ({"layers": {"a": "finl"}}, "'finl' do not exist: .* layers 0 to 2.* did you mean 'final'"),
        ({"layers": {"a": "final"}, "result": "ffn"}, "'a'.*no feed-forward branch"),
        ({"result": "blok"}, "result='blok'.*mean 'block'"),
        ({"precision": "bf61"}, "precision='bf61'.*mean 'bf16'"),
        ({"precision": "fp16"}, "precision='fp16'.*'fp32'"),
        ({"depth": 0}, "no blocks"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_read(options, message):
    def batches():
        raise AssertionError("read")
        yield

    with pytest.raises(ValueError, match=message):
        encode_layers(backbone(), batches(), **options)


def test_what_cannot_be_put_together_is_refused():
    encoder = backbone()
    with pytest.raises(ValueError, match="no batches"):
        collect_features(encoder, [])
    with pytest.raises(ValueError, match="1 of 2 batches have labels"):
        collect_features(encoder, [toy_batch(), toy_batch(labels=torch.arange(3))])
    with pytest.raises(ValueError, match="no class token"):
        collect_features(backbone(extra_tokens=0), [toy_batch()], poolings=["class-token"])

    class Square(Doubler):
        def encode(self, batch, mask=None, **options):
            return dataclasses.replace(super().encode(batch, **options), grid=(2, batch.source.shape[1] // 2))

    with pytest.raises(ValueError, match=r"grids .*\(2, 3\)"):
        collect_features(Square(), [toy_batch(1, 4), toy_batch(1, 6)], poolings=["tokens"], depth=1)
    assert collect_features(Square(), [toy_batch(1, 4), toy_batch(1, 6)], depth=1).ids.tolist() == [0, 1]


def test_features_with_labels_by_name():
    batch = toy_batch(labels=torch.arange(3))
    found = collect_features(backbone(), [batch], poolings=["mean", "class-token"], layers={"all": None, "0": [0]})
    assert torch.equal(found.labelled("class-token", "0").features, found.values["0"]["class-token"])
    assert torch.equal(found.labelled().features, found.values["all"]["mean"])
    with pytest.raises(ValueError, match=r"'meen'.*'mean'"):
        found.labelled("meen")
    with pytest.raises(ValueError, match="no features '1', only all, 0"):
        found.labelled("mean", "1")


# --- the raw input ----------------------------------------------------------------------------------------------------


def test_the_raw_input_is_flattened():
    batch = toy_batch(5, 4, labels=torch.arange(5), padding=torch.zeros(5, 4, dtype=torch.bool))
    found = raw_features(pieces(batch, [2, 3]))
    assert torch.equal(found.values["input"]["raw"], batch.source.reshape(5, -1))
    assert torch.equal(found.labels, batch.labels)
    assert found.ids.tolist() == list(range(5))


@pytest.mark.parametrize(
    "batches",
    [
        [Batch(source=torch.zeros(2, 5).long())],
        [toy_batch(2, 5), toy_batch(2, 5, padding=padding_of([5, 4], 5))],
        [toy_batch(2, 5), toy_batch(2, 6)],
    ],
    ids=["ids", "padding", "lengths"],
)
def test_what_is_no_fixed_number_of_floats_is_no_baseline(batches):
    assert raw_features(batches) is None
