"""What tests of labelled texts share: texts of two classes, and a small pretrained model."""

import random
from pathlib import Path

from d2v.core import pretrain

WORDS = ["the", "a", "film", "was", "plot", "with", "some", "people", "in", "it", "and", "then", "we", "saw", "more"]
MARKS = {"neg": ["bad", "awful", "poor", "dull", "horrid"], "pos": ["good", "great", "fine", "lovely", "superb"]}


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 4 to 12 words, with the class that one of them tells."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        label = ("neg", "pos")[number % 2]
        words = draw.choices(WORDS, k=draw.randint(3, 11))
        words.insert(draw.randrange(len(words)), draw.choice(MARKS[label]))
        found.append((" ".join(words), label))
    return found


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f'"{text}",{label}' for text, label in rows), ""]))
    return path


def pretrained(out: Path) -> Path:
    """A run of one update, with a tokenizer of the words above."""
    texts = out.with_name("texts.txt")
    texts.write_text("".join(f"{text}\n" for text, _ in reviews(600, seed=1)))
    pretrain(
        "text/small",
        {
            "data": str(texts),
            "out": str(out),
            "device": "cpu",
            "train.max_steps": 1,
            "train.batch_size": 2,
            "model.student.encoder.depth": 1,
            "model.targets.layers": 1,
            "model.student.adapters.text.vocabulary_size": 300,
            "data.vocabulary_size": 300,
        },
        progress=False,
    )
    return out
