"""Texts from fine-tuning to predictions: classes, numbers, pairs, GLUE's files, and several learning rates."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentences import reviews, write_csv

from d2v.core import evaluate, finetune, load, predict
from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.core.files import ConfigError
from d2v.core.jobs import finetuning
from d2v.core.jobs.several_runs import SeveralRuns
from d2v.core.model import Backbone, Batch
from d2v.text import SentenceClassifier, TextAdapterConfig, TextClassification, TextRegression

SHORT: dict[str, Any] = {"device": "cpu", "train.max_steps": 4, "train.batch_size": 4, "validation.every": 2}


def tuned(recipe: str, run: Path, data: Path, out: Path, **options: Any) -> Any:
    given = {**SHORT, "model": str(run), "data.path": str(data), "out": str(out), **options}
    return finetune(recipe, given, progress=False)


@pytest.fixture(scope="module")
def classified(text_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of texts, and a classifier that has learned it."""
    folder = tmp_path_factory.mktemp("classified")
    write_csv(folder / "reviews.csv", reviews(160))
    tuned(
        "text/classification",
        text_run,
        folder / "reviews.csv",
        folder / "classifier",
        **{"train.max_steps": 60, "train.batch_size": 16, "optim.lr": 5e-3, "validation.every": 0},
    )
    return folder


def test_a_table_from_fine_tuning_to_predictions(classified: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = str(classified / "classifier"), str(classified / "reviews.csv")
    found = evaluate(model=model, data=data, device="cpu", progress=False)
    assert found.metrics()["accuracy"] > 90
    (classified / "new.txt").write_text("such a lovely film\n\nthe plot was horrid\n")
    rows = predict(model=model, data=str(classified / "new.txt"), progress=False)
    assert [(row["file"], row["class"]) for row in rows] == [("new.txt:1", "pos"), ("new.txt:3", "neg")]
    assert [row["class"] for row in load(model).predict(["such a lovely film", "it was horrid"])] == ["pos", "neg"]
    assert main(["predict", f"model={model}", f"data.path={data}", "split=test", f"out={classified / 'p.csv'}"]) == 0
    names = [line.split(",")[0] for line in (classified / "p.csv").read_text().splitlines()[1:]]
    assert names == sorted(names, key=lambda name: int(name.rpartition(":")[2]))
    capsys.readouterr()


def test_another_length_is_said_once(text_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"model": text_run, "data.path": "CoLA", "out": "runs", "train.max_steps": 600}
    settings, _ = finetuning._settings("text/glue-cola", given)
    assert settings.train.max_steps == 600
    assert ["in proportion" in message for message in caplog.messages] == [True]


def test_unknown_labels_and_other_columns(classified: Path, tmp_path: Path) -> None:
    model = str(classified / "classifier")
    with pytest.raises(DataError, match=r"b.csv, line 2: 'mixed' is none of the 2 classes neg, pos"):
        evaluate(model=model, data=str(write_csv(tmp_path / "b.csv", [("a film", "mixed")])), progress=False)
    (tmp_path / "c.csv").write_text("title,stars\na film,pos\n")
    with pytest.raises(DataError, match="'title', 'stars'"):
        predict(model=model, data=str(tmp_path / "c.csv"), progress=False)
    assert predict({"data.text": "title"}, model=model, data=str(tmp_path / "c.csv"), progress=False)


def test_features_of_texts(text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("such a lovely film\nit\n")
    arguments = ["extract", f"model={text_run}", f"data.path={tmp_path / 'new.txt'}", "device=cpu"]
    assert main([*arguments, f"out={tmp_path / 'f.safetensors'}"]) == 0
    found = load_file(tmp_path / "f.safetensors")["features"]
    expected = load(text_run).features(["such a lovely film", "it"], layers="all", pooling="mean").x
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (tmp_path / "f.txt").read_text() == "new.txt:1\nnew.txt:2\n"
    assert main([*arguments, f"out={tmp_path / 't.safetensors'}", "pooling=tokens"]) == 0
    tokens = load_file(tmp_path / "t.safetensors")
    assert tokens["padding"].any(1).tolist() == [False, True]


def test_features_of_blocks(text_run: Path) -> None:
    """The blocks of pretraining are read if that kind of data is asked for."""
    texts, out = text_run.with_name("texts.txt"), text_run.with_name("blocks.safetensors")
    arguments = [f"data.path={texts}", "data.kind=text/tokens", "pooling=tokens", f"out={out}", "device=cpu"]
    assert main(["extract", f"model={text_run}", *arguments]) == 0
    assert load_file(out)["features"].shape[1:] == (64, 64)


def test_regression_of_pairs(text_run: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [text for text, _ in reviews(40)]
    rows = [{"sentence1": text, "sentence2": draw.choice(texts), "score": 5 * draw.random()} for text in texts]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuned("text/regression", text_run, tmp_path / "pairs.jsonl", tmp_path / "out", **{"task.label_scale": 5.0})
    found = evaluate(model=str(tmp_path / "out"), data=str(tmp_path / "pairs.jsonl"), device="cpu", progress=False)
    assert {"mse", "pearson", "spearman", "pearson_and_spearman"} <= found.metrics().keys() | found.undefined().keys()
    rows = predict(model=str(tmp_path / "out"), data=str(tmp_path / "pairs.jsonl"), progress=False)
    assert len(rows) == 40
    assert all(isinstance(row["number"], float) for row in rows)
    (one,) = load(tmp_path / "out").predict([(texts[0], rows and texts[1])])
    assert -10 < one["number"] < 10


def classifier(**options: Any) -> SentenceClassifier:
    from d2v.core.model import BlockConfig, TransformerConfig

    encoder = TransformerConfig(block=BlockConfig(embed_dim=64, num_heads=2), depth=1)
    backbone = Backbone({"text": TextAdapterConfig(vocabulary_size=10).build(encoder)}, encoder.build())
    return SentenceClassifier(backbone, num_classes=1, embed_dim=64, **options).eval()


def test_scaled_labels() -> None:
    torch.manual_seed(0)
    module = classifier(label_scale=5.0)
    batch = Batch(source=torch.tensor([[0, 5, 2], [0, 6, 2]]), labels=torch.tensor([5.0, 2.5]))
    logits = module.logits(batch)[:, 0]
    torch.testing.assert_close(module(batch, update=0).loss_sum, (logits - torch.tensor([1.0, 0.5])).square().sum())
    torch.testing.assert_close(module.numbers(batch), 5 * logits)
    with pytest.raises(ValueError, match="label_scale"):
        classifier(label_scale=0.0)


def test_initial_weights_of_the_head() -> None:
    default, normal = classifier(), classifier(init="normal")
    assert 0.9 / 8 < default.dense.weight.abs().max() <= 1 / 8  # uniform up to 1 / sqrt(64)
    assert default.dense.bias.any()
    assert 0.018 < normal.dense.weight.std() < 0.022
    assert not normal.dense.bias.any()


def test_dropout_of_the_encoder() -> None:
    from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig

    block = BlockConfig(embed_dim=8, num_heads=2, attention_dropout=0.3, projection_dropout=0.2, dropout=0.2)
    adapter = TextAdapterConfig(vocabulary_size=10, embedding_dropout=0.4)
    before = BackboneConfig(encoder=TransformerConfig(block=block, depth=1), adapters={"text": adapter})
    assert TextClassification().adapt(before) == before
    after = TextRegression(encoder_dropout=0.1, attention_dropout=0.0).adapt(before)
    assert isinstance(after, BackboneConfig)
    assert after.encoder.block.projection_dropout == after.encoder.block.dropout == 0.1  # type: ignore[attr-defined]  # ours
    assert after.encoder.block.attention_dropout == 0.0  # type: ignore[attr-defined]  # ours
    assert after.adapters["text"].embedding_dropout == 0.1  # type: ignore[attr-defined]  # ours


def glue(folder: Path, name: str) -> Path:
    """Official files of RTE or of STS-B, with few lines."""
    draw, texts = random.Random(0), [text for text, _ in reviews(60)]
    label = {"rte": lambda: draw.choice(["entailment", "not_entailment"]), "sts_b": lambda: f"{5 * draw.random():.3f}"}
    before = {"rte": 0, "sts_b": 6}[name]
    folder.mkdir()
    for split, count in (("train", 24), ("dev", 12), ("test", 7)):
        lines = ["header"]
        for number in range(count):
            cells = [str(number), *["x"] * before, draw.choice(texts), draw.choice(texts)]
            lines.append("\t".join([*cells, *([] if split == "test" else [label[name]()])]))
        (folder / f"{split}.tsv").write_text("\n".join([*lines, ""]))
    return folder


@pytest.mark.parametrize("name", ["rte", "sts_b"])
def test_glue_submissions(text_run: Path, tmp_path: Path, name: str) -> None:
    folder = glue(tmp_path / "glue", name)
    fitted = tuned(f"text/glue-{name.replace('_', '-')}", text_run, folder, tmp_path / "out")
    assert fitted.best_step in (2, 4, None)
    found = evaluate(model=str(tmp_path / "out"), data=str(folder), progress=False)
    assert list(found.splits) == ["dev"]
    keys = {"model": str(tmp_path / "out"), "data.path": str(folder), "split": "test", "out": str(tmp_path / "S.tsv")}
    predict(keys, progress=False)
    lines = [line.split("\t") for line in (tmp_path / "S.tsv").read_text().splitlines()]
    assert lines[0] == ["index", "prediction"]
    assert [index for index, _ in lines[1:]] == [str(number) for number in range(7)]
    if name == "rte":
        assert {label for _, label in lines[1:]} <= {"entailment", "not_entailment"}
    else:
        assert all(-10 < float(number) < 10 for _, number in lines[1:])
    with pytest.raises(ConfigError, match="one split"):
        predict({**keys, "split": ["dev", "test"]}, progress=False)


def test_a_run_ends_with_its_last_epoch(classified: Path, text_run: Path, tmp_path: Path) -> None:
    data = classified / "reviews.csv"
    given = {"data.hold_out": 0.0, "train.batch_size": 60, "train.max_steps": 50, "validation.every": 0}
    fitted = tuned("text/classification", text_run, data, tmp_path / "a", **given, **{"train.max_epochs": 2})
    assert fitted.step == 2 * 3
    lines = (tmp_path / "a/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["lr"] > 0, "the schedule is that of max_steps"
    more = {"train.max_epochs": 3, "resume": True}
    assert tuned("text/classification", text_run, data, tmp_path / "a", **given, **more).step == 9
    long = {"train.max_steps": 4, "train.max_epochs": 9}
    assert tuned("text/classification", text_run, data, tmp_path / "b", **{**given, **long}).step == 4


def test_an_interrupted_run_goes_on_exactly(classified: Path, text_run: Path, tmp_path: Path) -> None:
    given = {"train.checkpoint_every": 2, "train.max_steps": 6, "validation.every": 0, "task.dropout": 0.1}
    data = classified / "reviews.csv"
    tuned("text/classification", text_run, data, tmp_path / "a", **given)
    run = Path(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints/step-6")
    tuned("text/classification", text_run, data, run, **given, resume=True)
    one, other = (load_file(folder / "model/model.safetensors") for folder in (tmp_path / "a", run))
    assert all(torch.equal(one[name], other[name]) for name in one)


# Several learning rates


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with the splits train, val and test."""
    file = tmp_path_factory.mktemp("divided") / "reviews.csv"
    splits = ("train", "train", "train", "train", "val", "val", "test", "test")
    rows = [(text, f"{label},{splits[number % 8]}") for number, (text, label) in enumerate(reviews(80))]
    return write_csv(file, rows, header="text,label,split")


def test_several_learning_rates(
    text_run: Path, divided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    words = ["finetune", "text/classification", f"model={text_run}", f"data.path={divided}", f"out={out}"]
    words += [f"{key}={value}" for key, value in SHORT.items()]
    assert main([*words, "optim.lr=1e-4,1e-2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "lr"
    assert [line.split()[0] for line in lines[1:3]] == ["0.0001", "0.01"]
    assert sum(line.endswith("best") for line in lines) == 1
    marked = next(line for line in lines if line.endswith("best")).split()[0]
    assert lines[-1].startswith(f"best by accuracy: optim.lr={marked}, ")
    assert lines[-1].endswith(f"model={out}/lr={marked}")
    assert evaluate(model=str(out / f"lr={marked}"), data=str(divided), progress=False).metrics()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert len(before) > 1
    assert main([*words, "optim.lr=1e-4,1e-2,3e-3", "resume=true"]) == 0
    again = capsys.readouterr()
    assert "finished already" in again.err
    assert [line.split()[0] for line in again.out.splitlines()[1:4]] == ["0.0001", "0.01", "0.003"]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished runs are left as they are"
    assert again.out.splitlines()[1:3][0].split()[:3] == lines[1].split()[:3]


def test_the_best_run_is_chosen_by_the_metric(text_run: Path, divided: Path, tmp_path: Path) -> None:
    values = {"optim.lr": [1e-5, 5e-3], "validation.best": "loss"}
    found = tuned("text/classification", text_run, divided, tmp_path / "runs", **values)
    assert isinstance(found, SeveralRuns)
    losses = [one.metrics["loss"] for one in found.tried]
    assert found.tried[losses.index(min(losses))].best
    assert found.out == found.folders[losses.index(min(losses))]
    assert losses[0] != losses[1]
    stored = json.loads((tmp_path / "runs/runs.json").read_text())
    assert [one["values"] for one in stored.values()] == [{"optim.lr": 1e-5}, {"optim.lr": 5e-3}]
    assert [one["metrics"]["loss"] for one in stored.values()] == losses


def test_an_interrupted_sweep_goes_on(
    text_run: Path, divided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d2v.core.jobs import finetuning

    real, calls = finetuning.run_training, []

    def training(settings: Any, **options: Any) -> Any:
        calls.append(settings.out)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(settings, **options)

    monkeypatch.setattr(finetuning, "run_training", training)
    out = tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt):
        tuned("text/classification", text_run, divided, out, **{"optim.lr": [1e-4, 1e-3]})
    found = tuned("text/classification", text_run, divided, out, **{"optim.lr": [1e-4, 1e-3], "resume": True})
    assert [Path(call).name for call in calls] == ["lr=0.0001", "lr=0.001", "lr=0.001"]
    assert len(found.tried) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optim.lr": [1e-3, 1e-3]}, ["lr=0.001 is given twice"]),
        ({"optim.lr": [1e-3, -1.0]}, ["lr", "-1.0"]),
        ({"optim.lr": [1e-3, 1e-2], "validation.every": 0}, ["optim.lr", "validation.every=0"]),
    ],
)
def test_values_that_cannot_be_compared(
    text_run: Path, divided: Path, tmp_path: Path, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        tuned("text/classification", text_run, divided, tmp_path / "runs", **options)
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "runs").exists()


def test_there_must_be_a_split_to_choose_on(classified: Path, text_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no split `val`"):
        tuned("text/classification", text_run, classified / "reviews.csv", tmp_path / "a", **{"optim.lr": [1e-3, 1e-2]})


def test_finished_runs_of_other_settings_are_refused(text_run: Path, divided: Path, tmp_path: Path) -> None:
    from d2v.core.train import RunFolderError

    given: dict[str, Any] = {"optim.lr": [1e-4, 1e-3]}
    tuned("text/classification", text_run, divided, tmp_path / "runs", **given)
    with pytest.raises(RunFolderError, match="seed"):
        tuned("text/classification", text_run, divided, tmp_path / "runs", **given, seed=1, resume=True)
    with pytest.raises(RunFolderError, match="holds a run already"):
        tuned("text/classification", text_run, divided, tmp_path / "runs", **given)
