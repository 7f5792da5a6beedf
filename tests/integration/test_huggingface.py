"""data2vec 1.0 over a Hugging Face encoder, as the example wraps it."""

import torch
import transformers
from building import gradients, random_mask
from scripts import ROOT, loaded

from d2v.core.loss import RegressionLoss
from d2v.core.masks import SpanMasker
from d2v.core.model import Batch, Data2Vec, MaskedHead
from d2v.core.nn import LayerFeatures
from d2v.core.teacher import EMASchedule, EMATeacher, TargetAverager
from d2v.text import SentenceClassifier

EXAMPLE = "examples/huggingface_encoder.py"
DIM, DEPTH, MASK = 32, 3, 49


def encoder():
    example = loaded(EXAMPLE)
    config = transformers.RobertaConfig(
        vocab_size=50, hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40, type_vocab_size=1,
    )  # fmt: skip
    return example.RobertaEncoder(transformers.RobertaModel(config, add_pooling_layer=False), mask_id=MASK)


def compose():
    student = encoder()
    return Data2Vec(
        student,
        EMATeacher(student, EMASchedule(0.99)),
        predictors={"text": MaskedHead(DIM, num_layers=2)},
        maskers={"text": SpanMasker(mask_prob=0.4, mask_length=3)},
        targets=TargetAverager([1, 2], each=["layer"]),
        loss=RegressionLoss(beta=4.0),
    )


def texts(b=4, t=20):
    ids = torch.randint(3, 48, (b, t))
    ids[0, -5:] = 1
    return Batch(source=ids, padding=ids == 1)


def test_the_wrapper_is_short():
    assert len((ROOT / EXAMPLE).read_text().splitlines()) <= 80


def test_it_encodes_as_the_model_does():
    one, batch = encoder().eval(), texts()
    sink = LayerFeatures(range(DEPTH), kind="block")
    encoded = one.encode(batch, sink=sink)
    whole = one.model(batch.source, attention_mask=(~batch.padding).long(), output_hidden_states=True)
    torch.testing.assert_close(encoded.x, whole.last_hidden_state)
    for layer in range(DEPTH):
        torch.testing.assert_close(sink.results[layer], whole.hidden_states[layer + 1])
    mask = random_mask(4, 2, 20, 5)
    masked = batch.source.repeat_interleave(2, 0).masked_fill(mask.hidden, MASK)
    alone = one.encode(Batch(source=masked, padding=batch.padding.repeat_interleave(2, 0)))
    torch.testing.assert_close(one.encode(batch, mask).x, alone.x)


def test_a_feed_forward_branch_is_what_the_last_norm_adds():
    one, batch = encoder().eval(), texts()
    branches, blocks = LayerFeatures([1], kind="ffn"), LayerFeatures([1], kind="block")
    attended = []
    layer = one.model.encoder.layer[1]
    layer.attention.register_forward_hook(lambda _, __, out: attended.append(out[0]))
    for sink in (branches, blocks):
        one.encode(batch, sink=sink)
    expected = layer.output.LayerNorm(branches.results[1] + attended[0])
    torch.testing.assert_close(blocks.results[1], expected)


def test_a_few_updates_reduce_the_loss():
    model, batch = compose(), texts()
    assert model.teacher_start() == "raw"
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for update in range(25):
        out = model(batch, update=update)
        assert not (out.mask.hidden & batch.padding).any()
        assert out.sample_size == int(out.mask.hidden.sum())
        optimizer.zero_grad()
        (out.loss_sum / out.sample_size).backward()
        optimizer.step()
        model.update_teacher(update + 1)
        losses.append(out.loss_sum.item() / out.sample_size)
    assert not any(name.startswith("teacher.") for name in gradients(model))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_it_serves_other_heads():
    classifier = SentenceClassifier(encoder(), num_classes=3, embed_dim=DIM)
    out = classifier(Batch(source=texts().source, labels=torch.tensor([0, 1, 2, 0])), update=0)
    out.loss_sum.backward()
    assert out.loss_sum.isfinite()
