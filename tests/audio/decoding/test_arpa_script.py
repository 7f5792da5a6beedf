"""The script that makes n-gram models from text."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import loaded
from speech import LETTERS

from d2v.audio.decoding import read_lexicon

arpa = loaded("benchmarks/arpa.py")
TEXTS = st.lists(st.lists(st.sampled_from("ABC"), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(deadline=None)
@given(text=TEXTS, order=st.integers(1, 4), context=st.lists(st.sampled_from(["A", "B", "D", "<s>"]), max_size=3))
def test_probabilities_sum_to_one(text: list[list[str]], order: int, context: list[str]) -> None:
    model = arpa.Ngrams(text, order)
    words = [*model.words, "<unk>"]
    assert math.fsum(model.probability(tuple(context), word) for word in words) == pytest.approx(1)


def test_kenlm_reads_the_same_probabilities(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    text = [list("AB"), list("ABCA"), list("CC"), list("ABB")]
    model = arpa.Ngrams(text, 3)
    (tmp_path / "lm.arpa").write_text(model.arpa())
    read = kenlm.Model(str(tmp_path / "lm.arpa"))
    for sentence in ("A B C A", "C B A A", "B", "C C C D A B"):
        words = ["<s>", *(word if word in "ABC" else "<unk>" for word in sentence.split()), "</s>"]
        expected = sum(
            math.log10(model.probability(tuple(words[max(0, place - 2) : place]), words[place]))
            for place in range(1, len(words))
        )
        assert read.score(sentence) == pytest.approx(expected, abs=1e-4)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("AB A\n\nCAB\n")
    out, lexicon = tmp_path / "lm.arpa", tmp_path / "lexicon.txt"
    given_ = ["arpa.py", str(tmp_path / "text.txt"), "--out", str(out), "--lexicon", str(lexicon), "--order", "2"]
    monkeypatch.setattr("sys.argv", given_)
    arpa.main()
    assert "3 words" in capsys.readouterr().out
    assert set(read_lexicon(lexicon, LETTERS).words) == {"A", "AB", "CAB"}
    assert out.read_text().splitlines()[:3] == ["\\data\\", "ngram 1=6", "ngram 2=5"]
    with pytest.raises(ValueError, match="no sentences"):
        arpa.Ngrams([], 2)
