"""The decoder of the CTC task: predictions, evaluation, comparison of weights, transcripts in files, and validation."""

import csv
import inspect
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from recordings import save as save_recording
from scripts import loaded
from speech import DIM, LETTERS, encoder, speech, student

from d2v.audio import CTC, CTCModel
from d2v.audio.data import AudioDataConfig
from d2v.audio.decoding import Beam, BeamSearch, Greedy
from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.core.description import Description
from d2v.core.files import ConfigError, from_plain, save, to_plain
from d2v.core.jobs import evaluate, predict
from d2v.core.jobs.fine_tuned import check_use
from d2v.core.registry import MissingExtraError
from d2v.core.scores import Transcript
from d2v.core.task import Task

arpa = loaded("benchmarks/arpa.py")
SPLITS = {"dev": ["AB A", "C", "CAB AB", "BA"], "test": ["A B", "CC C"]}


def made(task: CTC) -> CTCModel:
    return task.build(encoder(task.adapt(student())), embed_dim=DIM, labels=LETTERS).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing, recordings with two splits, a lexicon and a language model."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("ctc")
    rows = []
    for split, texts in SPLITS.items():
        for number, text in enumerate(texts):
            name = f"{split}{number}.wav"
            save_recording(folder / "data" / name, 2000 + 300 * number, seed=len(rows))
            rows.append({"path": name, "text": text, "split": split})
    with (folder / "data/list.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=["path", "text", "split"])
        writer.writeheader()
        writer.writerows(rows)
    texts = [text.split() for split in SPLITS.values() for text in split]
    (folder / "lm.arpa").write_text(arpa.Ngrams(texts, 2).arpa())
    (folder / "lexicon.txt").write_text(arpa.lexicon(sorted({word for text in texts for word in text})))
    task = CTC()
    model, data = made(task), {"kind": "audio/recordings", "num_workers": 0}
    save(
        folder / "model",
        model,
        Description(model=task.adapt(student()), data={"audio": data}, task=task, labels=LETTERS),
    )
    return folder


def use(folder: Path, **more: Any) -> dict[str, Any]:
    return {"model": str(folder / "model"), "data.path": str(folder / "data/list.csv"), "device": "cpu", **more}


def beam(folder: Path, **more: Any) -> dict[str, Any]:
    files = {"task.decoder.lexicon": str(folder / "lexicon.txt"), "task.decoder.lm": str(folder / "lm.arpa")}
    options = {f"task.decoder.{key}": value for key, value in more.items()}
    return use(folder, **{"task.decoder.kind": "beam", **files, **options})


def test_kinds_and_defaults() -> None:
    assert CTC().decoder == Greedy()
    assert from_plain({"decoder": {"kind": "beam", "lm_weight": 3}}, CTC).decoder == Beam(lm_weight=3.0)
    plain = to_plain(CTC(decoder=Beam(nbest=4, lexicon="words.txt", unk_score=-3.0)))
    assert from_plain(plain, Task).decoder == Beam(nbest=4, lexicon="words.txt", unk_score=-3.0)  # type: ignore[type-abstract]
    assert json.loads(json.dumps(plain)) == plain


def test_the_decoder_may_change_and_nothing_else() -> None:
    check_use(CTC(decoder=Beam()), CTC())
    with pytest.raises(ConfigError, match=r"task\.blank_weight.*task\.decoder can"):
        check_use(CTC(blank_weight=1.0), CTC())


@pytest.mark.parametrize(
    "options",
    [{"beam_size": 0}, {"nbest": 0}, {"lm_weight": float("nan")}, {"beam_threshold": -1}, {"unk_score": -2.0}],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"decoder.*{next(iter(options))}"):
        from_plain({"decoder": {"kind": "beam", **options}}, CTC)


def test_words_of_a_lexicon_with_their_times(folder: Path) -> None:
    pytest.importorskip("flashlight")
    (folder / "spoken.txt").write_text("eye A B |\nsee C |\n")
    task = CTC(decoder=Beam(lexicon=str(folder / "spoken.txt"), nbest=3, word_score=20.0), sample_rate=1000)
    model, batch = made(task), speech([300, 130])
    with torch.no_grad():
        rows, outputs = task.predict(model, batch, labels=LETTERS), task.outputs(model, batch, labels=LETTERS)
    for row, output in zip(rows, outputs, strict=True):
        assert isinstance(output, Transcript)
        assert row["text"] == output.text
        assert set(row["text"].split()) <= {"eye", "see"}
        assert [word["word"] for word in row["words"]] == row["text"].split()
        assert all(word["start"] < word["end"] for word in row["words"])
        assert len(row["nbest"]) == 3
        assert row["nbest"][0] == {"text": row["text"], "score": row["score"]}
        scores = [one["score"] for one in row["nbest"]]
        assert scores == sorted(scores, reverse=True)
    assert any(row["words"] for row in rows)


def test_padding_does_not_change_a_transcript(folder: Path) -> None:
    pytest.importorskip("flashlight")
    task = CTC(decoder=Beam(nbest=2))
    model, batch = made(task), speech([400, 250])
    results = task.results(model, batch)
    assert [len(one) for one in results] == model.scores(batch)[1].tolist()
    assert task.decode(results[1:], labels=LETTERS) == task.decode(results, labels=LETTERS)[1:]
    assert task.decode([], labels=LETTERS) == []


def test_predictions_are_written(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    out = tmp_path / "predictions.csv"
    rows = predict({**beam(folder, nbest=2), "out": str(out), "split": ["dev"]}, progress=False)
    with out.open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [row["text"] for row in read] == [row["text"] for row in rows]
    assert [json.loads(row["nbest"]) for row in read] == [row["nbest"] for row in rows]


def test_weights_are_compared_with_one_pass(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    lists = {"lm_weight": [0.0, 1.0, 4.0], "word_score": [-2.0, 3.0]}
    alone = {
        (weight, score): evaluate(
            {**beam(folder, lm_weight=weight, word_score=score), "split": ["dev"]}, progress=False
        ).metrics()
        for weight in lists["lm_weight"]
        for score in lists["word_score"]
    }
    passes, scores = [], CTCModel.scores
    monkeypatch.setattr(CTCModel, "scores", lambda *given, **more: passes.append(1) or scores(*given, **more))
    out = str(tmp_path / "results.json")
    found = evaluate({**beam(folder, **lists), "split": ["dev", "test"], "out": out}, progress=False)
    assert len(passes) == 2
    assert [one.metrics for one in found.tried] == [pytest.approx(one) for one in alone.values()]
    assert [tuple(one.values.values()) for one in found.tried] == list(alone)
    (best,) = (one for one in found.tried if one.best)
    assert best.metrics["wer"] == min(one["wer"] for one in alone.values())
    assert found.splits["dev"].metrics() == pytest.approx(best.metrics)
    lm_weight, word_score = best.values.values()
    test = evaluate({**beam(folder, lm_weight=lm_weight, word_score=word_score), "split": ["test"]}, progress=False)
    assert found.splits["test"].metrics() == pytest.approx(test.metrics())
    lines = found.text().splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("lm_weight", "split"))] == [
        ["lm_weight", "word_score"],
        ["split", "wer"],
    ]
    assert sum(line.endswith("best") for line in lines) == 1
    stored = json.loads(Path(out).read_text())
    assert len(stored["tried"]) == 6
    assert stored["tried"][0]["task.decoder.lm_weight"] == 0.0
    assert sum(one.get("best", False) for one in stored["tried"]) == 1


@pytest.mark.parametrize("typed", ["1,2", "[1,2]"])
def test_lists_on_the_command_line(folder: Path, typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    given = [f"{key}={value}" for key, value in beam(folder, lm_weight=typed).items()]
    assert main(["evaluate", *given, "split=dev"]) == 0
    assert "compared on dev" in capsys.readouterr().out


def test_transcripts_are_written_to_a_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    evaluate({**use(folder), "split": ["dev", "test"], "out": str(out)}, progress=False)
    rows = {row["file"]: row for row in predict(use(folder, split=["dev"]), progress=False)}
    hypotheses = (out / "dev/hypo.word").read_text().splitlines()
    assert hypotheses == [f"{rows[f'dev{i}.wav']['text']} (None-{i})" for i in range(4)]
    units = (out / "dev/hypo.units").read_text().splitlines()
    assert units == [f"{rows[f'dev{i}.wav']['symbols']} (None-{i})" for i in range(4)]
    assert (out / "test/ref.word").read_text() == "A B (None-0)\nCC C (None-1)\n"
    assert (out / "test/ref.units").read_text().splitlines()[0] == "A | B | (None-0)"
    assert set(json.loads((out / "results.json").read_text())["splits"]) == {"dev", "test"}


def test_validation_uses_the_decoder(folder: Path) -> None:
    pytest.importorskip("flashlight")
    from d2v.core.jobs.scoring import scored

    (folder / "one.txt").write_text("same A |\n")
    batch = speech([200, 300], ["A|", "B|"])
    model = made(CTC())
    task = CTC(decoder=Beam(lexicon=str(folder / "one.txt"), word_score=5.0))
    found = scored(task, model, [batch], labels=LETTERS, device=torch.device("cpu"))
    assert "same" in found.tables()
    greedy = scored(CTC(), model, [batch], labels=LETTERS, device=torch.device("cpu")).metrics()
    assert "raw_wer" not in greedy
    assert found.metrics()["raw_wer"] == greedy["wer"] != found.metrics()["wer"]


def test_evaluation_has_the_error_rate_without_the_search(folder: Path) -> None:
    pytest.importorskip("flashlight")
    given = use(folder, **{"task.decoder.kind": "beam", "task.decoder.lexicon": str(folder / "lexicon.txt")})
    found = evaluate({**given, "split": ["dev"]}, progress=False).metrics()
    assert found["raw_wer"] == evaluate(use(folder, split=["dev"]), progress=False).metrics()["wer"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lexicon": "nowhere.txt"}, ("nowhere.txt",)),
        ({"lm": "nowhere.arpa"}, ("nowhere.arpa",)),
        ({"lexicon": "wrong.txt"}, ("wrong.txt", "DOG", "'D'")),
    ],
)
def test_wrong_files_are_named(
    folder: Path, options: dict[str, str], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flashlight")
    (folder / "wrong.txt").write_text("DOG D O G |\n")
    given = beam(folder, **{key: str(folder / value) for key, value in options.items()})
    monkeypatch.setattr(CTCModel, "scores", None)  # reported before any work
    with pytest.raises(DataError, match=words[0]) as error:
        evaluate({**given, "split": ["dev"]}, progress=False)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("job", [evaluate, predict])
@pytest.mark.parametrize("damage", ["lexicon", "lm", "extra"])
def test_wrong_files_are_reported_before_data_is_read(
    folder: Path, tmp_path: Path, job: Any, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flashlight")
    monkeypatch.setattr(AudioDataConfig, "contents", None)
    monkeypatch.setattr(AudioDataConfig, "build", None)
    (tmp_path / "other.arpa").write_text(arpa.Ngrams([["DOG", "CAT"]], 2).arpa())
    options = {"lexicon": {"lexicon": str(tmp_path / "nowhere.txt")}, "lm": {"lm": str(tmp_path / "other.arpa")}}
    if damage == "extra":
        monkeypatch.setattr("d2v.audio.decoding.packages.find_spec", lambda name: None)
    word = {"lexicon": "nowhere.txt", "lm": "other.arpa has none of", "extra": r"d2v\[decode\]"}[damage]
    with pytest.raises(MissingExtraError if damage == "extra" else DataError, match=word):
        job({**beam(folder, **options.get(damage, {})), "split": ["dev"]}, progress=False)


def test_greedy_has_nothing_to_compare(folder: Path) -> None:
    with pytest.raises(ConfigError, match="lm_weight"):
        evaluate(use(folder, **{"task.decoder.lm_weight": [1, 2]}), progress=False)


def test_lists_are_not_for_other_options(folder: Path) -> None:
    with pytest.raises(ConfigError, match="lexicon"):
        evaluate(beam(folder, lexicon=["a", "b"]), progress=False)


def test_defaults_are_those_of_the_search() -> None:
    taken = inspect.signature(BeamSearch).parameters
    fields = {one.name: one.default for one in attrs.fields(Beam)}
    assert {name: taken[name].default for name in fields if name not in ("lexicon", "lm")} == {
        name: default for name, default in fields.items() if name not in ("lexicon", "lm")
    }
    assert set(taken) - set(fields) == {"space"}
