"""Decoding as the original decodes: recorded hypotheses, and rules of greedy decoding and error rates."""

import json
import shutil
from pathlib import Path

import case_decoding
import check
import pytest
import torch
from safetensors.torch import load_file

from d2v.audio.decoding import best_path, read_transformer_lm
from d2v.audio.recordings.dictionary import librispeech_dictionary, parse_dictionary
from d2v.core.labels import Symbols
from d2v.core.model import Batch
from d2v.core.scores import SymbolScorer

DATA = Path(__file__).parent / "data"
DECODING = DATA / "decoding"
LETTERS = parse_dictionary(librispeech_dictionary(), "dict.ltr.txt")


def test_recorded_hypotheses() -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    result = check.check(DECODING)
    assert result["ok"], result["error"]
    assert set(result["max"]) == {"expected.json", "expected_transformer_lm.json", "lm.log_probs"}  # type: ignore[call-overload]


@pytest.mark.parametrize("key", ["score", "words", "timesteps"])
def test_other_hypotheses_fail(tmp_path: Path, key: str) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    folder = tmp_path / "decoding"
    shutil.copytree(DECODING, folder)
    expected = json.loads((folder / "expected.json").read_text())
    one = expected["cases"][0]["hypotheses"][1][0]
    one[key] = one[key] + 2e-4 if key == "score" else one[key][1:]
    (folder / "expected.json").write_text(json.dumps({**expected, "cases": expected["cases"][:1]}))
    result = check.check(folder)
    assert not result["ok"]
    assert key in str(result["error"])


def test_transformer_lm() -> None:
    lm, dictionary = read_transformer_lm(DECODING / "transformer_lm.pt")
    io = load_file(DECODING / "transformer_lm.io.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(lm(io["lm.tokens"]), io["lm.log_probs"], atol=1e-5, rtol=0)
    expected = json.loads((DECODING / "expected_transformer_lm.json").read_text())
    assert list(dictionary.symbols) == expected["lm_dictionary"]


def test_greedy_decoding_and_error_rates() -> None:
    rules = json.loads((DATA / "rules/ctc.json").read_text())
    emissions = load_file(DATA / "rules/ctc.safetensors")["emissions"]
    scorer = SymbolScorer(LETTERS)
    unit_errors = SymbolScorer(Symbols(LETTERS.symbols, blank="<s>"))
    assert LETTERS.blank_number == rules["blank"]
    for number, one in enumerate(rules["utterances"]):
        found = best_path(emissions[number].log_softmax(-1), LETTERS.blank_number)
        assert list(found.tokens) == one["tokens"]
        assert found.score == pytest.approx(one["score"], abs=1e-4)
        assert " ".join(LETTERS.symbols[token] for token in found.tokens) == one["pieces"]
        reference = torch.tensor([one["reference_ids"]])
        assert LETTERS.text(one["reference_ids"]) == one["reference"]
        batch = Batch(source=torch.zeros(1, 1), labels=reference, label_lengths=torch.tensor([reference.shape[1]]))
        scorer.update([found.tokens], batch)
        unit_errors.update([found.tokens], batch)
    assert scorer.compute().metrics()["wer"] == pytest.approx(rules["wer"])
    assert unit_errors.compute().metrics()["uer"] == pytest.approx(rules["uer"])


def test_what_is_a_decoding_case() -> None:
    assert case_decoding.is_decoding(DECODING)
    assert not case_decoding.is_decoding(DATA / "v1/audio_v1_base")
