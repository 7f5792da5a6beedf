"""The image classifier against the numbers of the original's fine-tuning, and its own rules."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import randomise
from compare import compare
from safetensors.torch import load_file
from torch import Tensor

from d2v.core.foreign import KeyTable, Rename
from d2v.core.model import Backbone, Batch, BlockConfig, ContextConfig, TransformerConfig
from d2v.core.train import LayerDecay, parameter_groups
from d2v.vision import ImageAdapterConfig, ImageClassifier
from d2v.vision.convert import converters
from d2v.vision.tasks.rates import fine_tuning_drop_path

FIXTURE = Path(__file__).parent / "data/image_cls_v2"
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=2)


@pytest.fixture
def io() -> dict[str, Tensor]:
    return load_file(FIXTURE / "io.safetensors")


@pytest.fixture
def published() -> tuple[dict[str, Any], ImageClassifier, KeyTable]:
    """The file's configuration, its model, and its tensor names by the library's."""
    config = json.loads((FIXTURE / "config.json").read_text())
    tensors = load_file(FIXTURE / "model.safetensors")
    foreign = {"model": config["model_cfg"]}
    (converter,) = [one for one in converters if one.accepts(foreign)]
    encoder = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.items()}
    ours = converter.config(foreign, shapes)
    table = converter.layout(ours, shapes).table
    task = config["classification_cfg"]
    model = ImageClassifier(
        ours.student.build(),
        num_classes=task["num_classes"],
        embed_dim=ours.student.embed_dim,
        norm=task["use_fc_norm"],
        label_smoothing=task["label_smoothing"],
    )
    names = KeyTable([Rename(f"fc_norm.{part}", f"norm.{part}") for part in ("weight", "bias")])
    state = {
        name.replace("student.", "encoder.", 1): tensor for name, tensor in table.to_ours(encoder, partial=True).items()
    }
    state |= names.to_ours({n: t for n, t in tensors.items() if n.startswith("fc_norm")})
    state |= {n: t for n, t in tensors.items() if n.startswith("head")}
    model.load_state_dict(state)
    return config, model, table


def their_names(table: KeyTable, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    inside = {f"student.{n.removeprefix('encoder.')}": t for n, t in tensors.items() if n.startswith("encoder.")}
    found = {f"model.{name}": tensor for name, tensor in table.to_theirs(inside).items()}
    found |= {n.replace("norm.", "fc_norm."): t for n, t in tensors.items() if n.startswith("norm.")}
    return found | {n: t for n, t in tensors.items() if n.startswith("head.")}


def agree(expected: dict[str, Tensor], produced: dict[str, Tensor]) -> None:
    problems, _ = compare(expected, produced)
    assert not problems


def test_published_logits_losses_and_accuracy(published: Any, io: dict[str, Tensor]) -> None:
    _, model, _ = published
    batch = Batch(source=io["imgs"], labels=io["labels"])
    encoded = model.encoder.encode(batch)
    smoothed = model.train()(batch, update=0)
    plain = model.eval()(batch, update=0)
    assert smoothed.sample_size == plain.sample_size == 4
    agree(
        {
            "features": io["features"],
            "logits": io["logits"],
            "eval": io["eval.loss"].sum(),
            "smoothed": io["smoothed.loss"].sum(),
        },
        {
            "features": encoded.x[:, encoded.num_prefix_tokens :],
            "logits": model.logits(batch),
            "eval": plain.loss_sum,
            "smoothed": smoothed.loss_sum,
        },
    )
    accuracy, count = plain.metrics["accuracy"]
    assert accuracy == 100 * io["eval.correct"].item()
    assert count == 4


def test_published_gradients_of_mixed_images(published: Any, io: dict[str, Tensor]) -> None:
    """The mixing itself is not tested: images and targets are taken as the file gives them."""
    _, model, table = published
    logits = model.train().logits(Batch(source=io["mixed.imgs"]))
    elements = -io["mixed.targets"] * F.log_softmax(logits.float(), 1)
    elements.sum().backward()
    gradients = their_names(table, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    expected = {name: tensor for name, tensor in io.items() if name.startswith("grad.")}
    assert len(expected) == len(gradients)
    agree(
        expected | {"elements": io["mixed.loss_elements"]},
        {f"grad.{name}": tensor for name, tensor in gradients.items()} | {"elements": elements},
    )


def test_published_rates_by_layer_and_decay_groups(published: Any) -> None:
    config, model, table = published
    decay = LayerDecay(config["classification_cfg"]["layer_decay"], blocks=model.encoder.blocks())
    found = {}
    for group in parameter_groups(model, weight_decay=0.05, layer_decay=decay):
        for parameter in group["params"]:
            found[id(parameter)] = (group["lr_scale"], group["weight_decay"])
    values = {name: torch.tensor(found[id(p)], dtype=torch.float64) for name, p in model.named_parameters()}
    # Names alone are translated: no rule of this table reshapes.
    produced = their_names(table, values)
    expected = {
        name: torch.tensor([own.get("lr_scale", 1.0), 0.05 * own.get("weight_decay_scale", 1)], dtype=torch.float64)
        for name, own in config["optim_overrides"].items()
        if not name.endswith("fixed_positional_encoder.positions")
    }
    assert produced.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(produced[name], expected[name])


def classifier(**options: Any) -> ImageClassifier:
    extra = options.pop("extra_tokens", 1)
    adapter = ImageAdapterConfig(image_size=8, patch_size=4, extra_tokens=extra).build(ENCODER)
    backbone = randomise(Backbone({"vision": adapter}, ENCODER.build()))
    return ImageClassifier(backbone, num_classes=5, embed_dim=16, **options)


def images(count: int = 3) -> Batch:
    return Batch(source=torch.randn(count, 3, 8, 8), labels=torch.arange(count) % 5)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "class-token"])
def test_pooling(pooling: Any, norm: bool) -> None:
    model, batch = classifier(pooling=pooling, norm=norm), images()
    x = model.encoder.encode(batch).x
    x = x[:, 1:].mean(1) if pooling == "mean" else x[:, 0]
    x = F.layer_norm(x, (16,), eps=1e-6) if norm else x
    torch.testing.assert_close(model.logits(batch), F.linear(x, model.head.weight, model.head.bias))
    assert model.logits(batch).shape == (3, 5)


def test_start_of_the_head() -> None:
    torch.manual_seed(1)
    model = ImageClassifier(torch.nn.Identity(), num_classes=1000, embed_dim=64)
    assert not model.head.bias.any()
    assert 0.0195 < model.head.weight.std().item() < 0.0205


def test_loss_is_a_sum_and_smooth_in_training_only() -> None:
    model, batch = classifier(label_smoothing=0.1), images(4)
    whole = model.eval()(batch, update=0)
    parts = [model(Batch(source=batch.source[i : i + 1], labels=batch.labels[i : i + 1]), update=0) for i in range(4)]
    torch.testing.assert_close(whole.loss_sum, sum(part.loss_sum for part in parts))
    torch.testing.assert_close(whole.loss_sum, F.cross_entropy(model.logits(batch), batch.labels, reduction="sum"))
    log = F.log_softmax(model.logits(batch), 1)
    target = 0.9 * F.one_hot(batch.labels, 5) + 0.1 / 5
    torch.testing.assert_close(model.train()(batch, update=0).loss_sum, -(target * log).sum())


def test_loss_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = classifier()(images(), update=0)
    assert out.loss_sum.dtype == torch.float32
    out.loss_sum.backward()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no labels"):
        classifier()(Batch(source=torch.zeros(1, 3, 8, 8)), update=0)
    with pytest.raises(ValueError, match="no class token"):
        classifier(pooling="class-token", extra_tokens=0).logits(images())
    for options, message in (
        ({"pooling": "max"}, "pooling='max'.*'mean'"),
        ({"label_smoothing": 1.0}, "label_smoothing.*1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier(**options)
    with pytest.raises(ValueError, match=r"num_classes.*0"):
        ImageClassifier(torch.nn.Identity(), num_classes=0, embed_dim=4)


@pytest.mark.parametrize(
    ("rate", "context", "depth"), [(0.1, 2, 10), (0.2, 0, 24), (0.1, 1, 3), (0.3, 1, 2), (0.2, 0, 1)]
)
def test_drop_path_rates(rate: float, context: int, depth: int) -> None:
    rates = np.linspace(0, rate, depth)
    first, shared = fine_tuning_drop_path(rate, context_depth=context, depth=depth)
    if context:
        assert np.allclose(first, (rates[0], rates[context - 1]))
    assert np.allclose(shared, (rates[context], rates[-1]))
    block = BlockConfig(embed_dim=8, num_heads=2)
    encoder = TransformerConfig(block=block, depth=depth, drop_path_rate=shared)
    assert len(encoder.build_context(ContextConfig(depth=context, drop_path_rate=first)).blocks) == context


def test_drop_path_refusals() -> None:
    with pytest.raises(ValueError, match=r"rate.*1.0"):
        fine_tuning_drop_path(1.0, context_depth=0, depth=2)
    with pytest.raises(ValueError, match="2 context blocks"):
        fine_tuning_drop_path(0.1, context_depth=2, depth=2)
