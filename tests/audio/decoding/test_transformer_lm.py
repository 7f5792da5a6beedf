"""Transformer language models: the network, files of the original toolkit, scores in batches with bounded memory."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from building import randomise
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.audio.decoding import TransformerLM, read_transformer_lm
from d2v.audio.decoding.prefix_scores import PrefixScores
from d2v.audio.decoding.transformer_lm import sinusoids
from d2v.core.data import DataError
from d2v.core.foreign import ForeignFileError

DATA = Path(__file__).parents[2] / "parity/data/decoding"
WORDS = 8


def network(**options: Any) -> TransformerLM:
    built: TransformerLM = randomise(
        TransformerLM(num_words=WORDS, embed_dim=8, depth=2, num_heads=2, **options)
    ).eval()
    return built


@pytest.mark.parametrize("options", [{}, {"norm": "pre", "norm_out": True}])
def test_scores_do_not_depend_on_later_words(options: dict[str, Any]) -> None:
    lm = network(**options)
    words = torch.randint(WORDS, (3, 6))
    with torch.no_grad():
        whole = lm(words)
        torch.testing.assert_close(lm(words[:, :4]), whole[:, :4])
        torch.testing.assert_close(lm(words, torch.tensor([1, 5, 2])), whole[torch.arange(3), torch.tensor([1, 5, 2])])
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(3, 6))
    assert not torch.allclose(whole[:, 0], whole[:, 1], atol=1e-3)


def test_positions_start_at_two() -> None:
    expected = [math.sin(2), math.sin(2e-4), math.cos(2), math.cos(2e-4)]  # rates 1 and 1/10000
    torch.testing.assert_close(sinusoids(2, 4)[0], torch.tensor(expected))


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim=7"):
        TransformerLM(num_words=4, embed_dim=7, depth=1, num_heads=1)


def rewritten(folder: Path, change: Any) -> Path:
    """The recorded checkpoint with a change of its configuration and tensors."""
    shutil.copy(DATA / "dict.txt", folder)
    contents = torch.load(DATA / "transformer_lm.pt", weights_only=False)
    change(contents["cfg"]["model"], contents["model"])
    torch.save(contents, folder / "lm.pt")
    return folder / "lm.pt"


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("adaptive_input", True, "adaptive_input"),
        ("adaptive_softmax_cutoff", "20000,60000", "adaptive_softmax_cutoff"),
        ("tie_adaptive_weights", True, "adaptive"),
        ("decoder_learned_pos", True, "decoder_learned_pos"),
        ("layernorm_embedding", True, "layernorm_embedding"),
        ("character_embeddings", True, "character_embeddings"),
        ("decoder_input_dim", 8, "decoder_input_dim"),
        ("activation_fn", "swish", "activation_fn"),
        ("scale_heads", True, "scale_heads"),
        ("decoder_layers", 3, "layers.2"),
        ("_name", "fconv_lm", "fconv_lm"),
    ],
)
def test_other_networks_are_refused_by_name(tmp_path: Path, field: str, value: Any, word: str) -> None:
    with pytest.raises(ForeignFileError, match=word):
        read_transformer_lm(rewritten(tmp_path, lambda model, _: model.update({field: value})))


def test_adaptive_tensors_are_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path, lambda _, own: own.update({"decoder.adaptive_softmax.head.weight": torch.zeros(2)}))
    with pytest.raises(ForeignFileError, match="adaptive"):
        read_transformer_lm(path)


def test_fields_that_are_not_known_give_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="rotary"):
        read_transformer_lm(rewritten(tmp_path, lambda model, _: model.update(rotary=True)))


def test_a_tied_matrix_that_the_file_has_once(tmp_path: Path) -> None:
    lm, _ = read_transformer_lm(rewritten(tmp_path, lambda _, own: own.pop("decoder.output_projection.weight")))
    assert torch.equal(lm.proj.weight, lm.embedding.weight)


@pytest.mark.parametrize("text", [None, "THE 100\n", "THE\n"])
def test_dictionaries_that_do_not_fit(tmp_path: Path, text: str | None) -> None:
    shutil.copy(DATA / "transformer_lm.pt", tmp_path)
    if text is not None:
        (tmp_path / "dict.txt").write_text(text)
    with pytest.raises(DataError, match=r"dict\.txt"):
        read_transformer_lm(tmp_path / "transformer_lm.pt")


def test_damaged_files(tmp_path: Path) -> None:
    shutil.copy(DATA / "dict.txt", tmp_path)
    (tmp_path / "lm.pt").write_bytes((DATA / "transformer_lm.pt").read_bytes()[:2000])
    with pytest.raises(ForeignFileError, match=r"lm\.pt"):
        read_transformer_lm(tmp_path / "lm.pt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ForeignFileError, match="transformer_lm"):
        read_transformer_lm(tmp_path / "other.pt")


@settings(deadline=None, max_examples=30)
@given(
    questions=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=40),
    batch_size=st.integers(1, 5),
    most_bytes=st.sampled_from([1, 200, 1 << 20]),
)
def test_batches_and_memory_do_not_change_scores(
    questions: list[tuple[int, int]], batch_size: int, most_bytes: int
) -> None:
    torch.manual_seed(1)
    lm, numbers = network(), [4, 5, None, 6, 7]
    scores = PrefixScores(lm, numbers, start=2, batch_size=batch_size, most_bytes=most_bytes)
    prefixes = [scores.first]
    for place, word in questions:
        prefix = prefixes[place % len(prefixes)]
        number = 2 if word == scores.end else numbers[word]
        expected = -math.inf
        if number is not None:
            with torch.no_grad():
                expected = lm(torch.tensor([prefix]))[0, -1, number].item()
        assert scores.log_prob(prefix, word) == pytest.approx(expected, abs=1e-5)
        prefixes.append(scores.longer(prefix, word))
        assert len(scores._kept) <= max(batch_size, most_bytes // (4 * 5))
    assert scores.longer((2, 4), 2) == (2, 4)
    assert scores.longer((2, 4), scores.end) == (2, 4)


def test_waiting_prefixes_share_a_run() -> None:
    scores = PrefixScores(network(), [4, 5, 6], start=2, batch_size=4)
    longer = [scores.longer(scores.first, word) for word in range(3)]
    scores.log_prob(longer[0], 1)
    assert scores.runs == 1
    for prefix in longer:
        scores.log_prob(prefix, 2)
    assert scores.runs == 1
    scores.log_prob(scores.first, 0)
    assert scores.runs == 2
