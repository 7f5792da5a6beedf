"""The sentence-classification head."""

import pytest
import torch
import torch.nn.functional as F
from building import gradients, randomise

from d2v.core.model import Backbone, Batch, BlockConfig, TransformerConfig
from d2v.text import SentenceClassifier, TextAdapterConfig

DIM = 8
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=2), depth=2)
IDS = torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1], [0, 2, 1, 1]])


def make(num_classes=3, *, extra=0, dropout=0.0):
    adapter = TextAdapterConfig(vocabulary_size=10, max_length=8, extra_tokens=extra, embedding_dropout=0.0).build(
        ENCODER
    )
    backbone = Backbone({"text": adapter}, ENCODER.build())
    return randomise(SentenceClassifier(backbone, num_classes=num_classes, embed_dim=DIM, dropout=dropout), std=0.3)


@pytest.mark.parametrize("extra", [0, 2])
def test_it_reads_the_first_token_behind_the_extra_ones(extra):
    classifier, batch = make(extra=extra), Batch(source=IDS)
    first = classifier.encoder.encode(batch).x[:, extra]
    expected = classifier.out_proj(torch.tanh(classifier.dense(first)))
    torch.testing.assert_close(classifier.logits(batch), expected)
    assert expected.shape == (3, 3)


def test_classes():
    classifier, labels = make(), torch.tensor([2, 0, 1])
    batch = Batch(source=IDS, labels=labels)
    out = classifier(batch, update=0)
    assert out.sample_size == 3
    expected = -classifier.logits(batch).log_softmax(1)[range(3), labels].sum()
    torch.testing.assert_close(out.loss_sum, expected)
    assert out.metrics["loss"] == (out.loss_sum.detach(), 3)


def test_regression():
    classifier, labels = make(1), torch.tensor([0.5, 3, -1])
    batch = Batch(source=IDS, labels=labels)
    out = classifier(batch, update=0)
    torch.testing.assert_close(out.loss_sum, F.mse_loss(classifier.logits(batch)[:, 0], labels, reduction="sum"))
    whole = Batch(source=IDS, labels=torch.tensor([1, 2, 3]))
    assert classifier(whole, update=0).loss_sum.isfinite()


def test_sums_add_up_over_micro_batches():
    classifier, labels = make(), torch.tensor([2, 0, 1])
    classifier(Batch(source=IDS, labels=labels), update=0).loss_sum.backward()
    whole = gradients(classifier)
    classifier.zero_grad()
    for i in range(3):
        classifier(Batch(source=IDS[i : i + 1], labels=labels[i : i + 1]), update=0).loss_sum.backward()
    for name, gradient in gradients(classifier).items():
        torch.testing.assert_close(gradient, whole[name], atol=1e-5, rtol=1e-4)


def test_dropout_acts_in_training_only():
    classifier, batch = make(dropout=0.5), Batch(source=IDS)
    assert not torch.equal(classifier.logits(batch), classifier.logits(batch))
    classifier.eval()
    assert torch.equal(classifier.logits(batch), classifier.logits(batch))


def test_a_batch_without_labels():
    with pytest.raises(ValueError, match="no labels"):
        make()(Batch(source=IDS), update=0)


@pytest.mark.parametrize("rows", [3, 1])
def test_whether_there_is_padding_is_known_before_the_step(rows):
    classifier = make()
    batch = Batch(source=IDS[:rows], labels=torch.tensor([2, 0, 1])[:rows])
    prepared = classifier.prepared(batch, update=0)
    assert prepared.known.padded == (rows == 3)
    assert prepared.mask is None
    assert torch.equal(classifier(prepared, update=0).loss_sum, classifier(batch, update=0).loss_sum)
