"""A loaded model returns the features of its encoder and the predictions of its task for every form of input."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
import torch.nn.functional as F
from attrs import frozen
from building import DIM, NEW, adapted, padding_of, randomise, toy_batch, with_student
from torch import Tensor, nn

from d2v.core.data import DataConfig, DataError, item_error, item_list
from d2v.core.description import Description
from d2v.core.files import ConfigError, Stored, add_kind
from d2v.core.jobs import ReadyModel
from d2v.core.labels import Classes, Labels
from d2v.core.model import Batch, Data2Vec, Student

CLASSED = adapted(NEW, extra_tokens=1)
RICH = with_student(CLASSED, encoder=attrs.evolve(CLASSED.student.encoder, norm_out=True))


@frozen(kw_only=True)
class ToyData:
    """Recordings, as pairs of an array and its rate, and texts, a position a letter."""

    path: str
    scale: float = 1.0

    def prepare(self, items: Iterable[Any]) -> Batch:
        rows = [self._row(place, item) for place, item in enumerate(item_list(items))]
        t = max(map(len, rows))
        source = torch.stack([F.pad(row, (0, 0, 0, t - len(row))) for row in rows])
        return Batch(source=self.scale * source, padding=padding_of([len(row) for row in rows], t))

    def _row(self, place: int, item: Any) -> Tensor:
        if isinstance(item, str | Path):
            return torch.tensor([[float(ord(letter)) / 100] * 3 for letter in str(item)[:20]])
        array, rate = item
        if rate != 10:
            raise item_error(place, array, f"has a rate of {rate}, not 10")
        return torch.as_tensor(array)


class ToyModel(nn.Module):
    def __init__(self, encoder: Student) -> None:
        super().__init__()
        self.encoder = encoder


@frozen(kw_only=True)
class ToyTask:
    """Predicts the largest channel of the mean feature."""

    modality: ClassVar[str] = "toy"

    def build(self, encoder: Student, *, embed_dim: int, labels: Labels) -> ToyModel:
        return ToyModel(encoder)

    def predict(self, module: nn.Module, batch: Batch, *, labels: Labels) -> list[dict[str, Any]]:
        assert isinstance(module, ToyModel)
        assert not module.training
        assert not torch.is_grad_enabled()
        encoded = module.encoder.encode(batch)
        x = encoded.x if encoded.padding is None else encoded.x.masked_fill(encoded.padding[..., None], 0)
        assert isinstance(labels, Classes)
        return [{"class": labels.names[number]} for number in x.sum(1).argmax(1).tolist()]


add_kind(DataConfig, "toy-items", ToyData)


def pretrained(**options: Any) -> ReadyModel:
    model = RICH.build()
    randomise(model.student)
    description = Description(model=RICH, data={"toy": {"kind": "toy-items", "scale": 0.5}})
    return ReadyModel(Stored(path=Path("run"), description=description, module=model), **options)


def tuned() -> ReadyModel:
    description = Description(
        model=RICH.student,
        data={"toy": {"kind": "toy-items"}},
        task=ToyTask(),  # type: ignore[arg-type]  # what is used of a task
        labels=Classes(tuple(f"channel {number}" for number in range(DIM))),
    )
    module = randomise(description.build())
    return ReadyModel(Stored(path=Path("tuned"), description=description, module=module))


@torch.no_grad()
def encoded(model: ReadyModel, batch: Batch) -> Tensor:
    return model.encoder.encode(batch).x


def test_the_default_is_every_token_of_the_final_output() -> None:
    model, batch = pretrained(), toy_batch(3, 6, padding=padding_of([6, 4, 1], 6))
    found = model.features(batch)
    assert found.x.shape == (3, 6, DIM)
    assert found.grid == (6,)
    assert found.padding is not None
    assert torch.equal(found.padding, padding_of([6, 4, 1], 6))
    assert torch.equal(found.x, encoded(model, batch)[:, 1:].masked_fill(found.padding[..., None], 0))
    assert model.features(toy_batch(2, 6)).padding is None


@pytest.mark.parametrize("pooling", ["mean", "class-token"])
def test_pooled_features(pooling: str) -> None:
    model, batch = pretrained(), toy_batch(2, 5)
    found = model.features(batch, pooling=pooling)
    x = encoded(model, batch)
    torch.testing.assert_close(found.x, x[:, 1:].mean(1) if pooling == "mean" else x[:, 0])
    assert (found.padding, found.grid) == (None, None)


def test_layers_and_results_can_be_chosen() -> None:
    model, batch = pretrained(), toy_batch(2, 5)
    one, all_layers = model.features(batch, layers=-1).x, model.features(batch, layers=None).x
    layers = [model.features(batch, layers=[number]).x for number in range(3)]
    assert torch.equal(one, layers[2])
    torch.testing.assert_close(all_layers, torch.stack(layers).mean(0))
    assert torch.equal(all_layers, model.features(batch, layers="all").x)
    assert not torch.allclose(one, model.features(batch).x), "there is a norm behind the last block"
    assert not torch.allclose(one, model.features(batch, layers=-1, result="ffn").x)
    with pytest.raises(ValueError, match=r"layers 0 to 2.*'all' and 'final'"):
        model.features(batch, layers=3)
    with pytest.raises(ValueError, match="pooling='men'"):
        model.features(batch, pooling="men")


def test_items_are_prepared_as_the_data_were() -> None:
    model = pretrained()
    recordings = [(torch.randn(length, 3), 10) for length in (4, 7, 2)]
    batch = model.prepare(recordings)
    assert batch.modality == "toy"
    assert torch.equal(batch.source[1], recordings[1][0] * 0.5)
    whole = model.features(recordings)
    assert torch.equal(whole.x, model.features(batch).x)
    assert torch.equal(whole.padding, padding_of([4, 7, 2], 7))  # type: ignore[arg-type]
    few = model.features(iter(recordings), batch_size=1)
    torch.testing.assert_close(few.x, whole.x, atol=1e-5, rtol=1e-4)
    assert torch.equal(few.padding, whole.padding)  # type: ignore[arg-type]
    assert model.features(["abc", "de"]).x.shape == (2, 3, DIM)


def test_bad_items_are_named() -> None:
    model = pretrained()
    items = [(torch.randn(2, 3), 10)] * 3 + [(torch.randn(2, 3), 8)]
    with pytest.raises(DataError, match=r"item 3, .*rate"):
        model.features(items)
    with pytest.raises(DataError, match=r"item 1, .*rate .*10"):
        model.features(items, batch_size=2)
    with pytest.raises(DataError, match="'abc' is one item"):
        model.features("abc")
    with pytest.raises(ConfigError, match=r"vision .*toy"):
        model.prepare(["abc"], modality="vision")


def test_weights_are_chosen_once_or_for_a_call() -> None:
    torch.manual_seed(0)
    model = pretrained()
    torch.manual_seed(0)
    other = pretrained(weights="teacher")
    batch = toy_batch()
    student, teacher = model.features(batch).x, model.features(batch, weights="teacher").x
    assert not torch.allclose(student, teacher)
    assert torch.equal(other.features(batch).x, teacher)
    assert isinstance(other.module, Data2Vec)
    state = other.module.teacher.module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.encoder.state_dict().items())
    for part in (model.module, model.encoder, other.encoder):
        assert not part.training


def test_the_encoder_is_its_own() -> None:
    """What becomes of it does not change the model that it was taken from."""
    model = pretrained()
    assert isinstance(model.module, Data2Vec)
    before = {name: tensor.clone() for name, tensor in model.module.student.state_dict().items()}
    randomise(model.encoder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.student.state_dict().items())


def test_it_moves_with_all_that_it_has() -> None:
    model = pretrained()
    model.features(toy_batch(), weights="teacher")
    assert model.to("meta") is model
    for part in (model.module, model.encoder):
        assert {parameter.device.type for parameter in part.parameters()} == {"meta"}
    with pytest.raises(NotImplementedError, match="meta"):  # computed there, features cannot come back
        model.features(toy_batch(), weights="teacher")
    with pytest.raises(ConfigError, match="quantum"):
        model.to("quantum")


def test_a_fine_tuned_model_predicts(tmp_path: Path) -> None:
    model = tuned()
    file = tmp_path / "abc"
    file.touch()
    batch = model.prepare(["xyz", "a" * 5000, "some text"])
    rows = model.predict(["xyz", "a" * 5000, "some text"])
    assert rows == model.predict(batch)
    assert rows == model.predict(["xyz", "a" * 5000, "some text"], batch_size=1)
    assert all(set(row) == {"class"} for row in rows)
    assert [row["file"] for row in model.predict([file, str(file)])] == [str(file)] * 2
    assert model.features(batch).x.shape == (3, 20, DIM)
    with pytest.raises(ConfigError, match="has no teacher"):
        model.features(batch, weights="teacher")


def test_a_mode_that_was_set_comes_back() -> None:
    model = tuned()
    model.module.train()
    model.predict(["abc"])
    assert model.module.training


def test_what_cannot_be_done_is_reported() -> None:
    with pytest.raises(ConfigError, match="`d2v finetune`"):
        pretrained().predict(["abc"])
    bare = Stored(path=Path("run"), description=Description(model=RICH), module=RICH.build())
    with pytest.raises(ConfigError, match="records none; give a Batch"):
        ReadyModel(bare).prepare(["abc"])
    assert ReadyModel(bare).features(toy_batch()).x.shape == (3, 8, DIM)
    with pytest.raises(ConfigError, match="'techer'"):
        pretrained(weights="techer")
