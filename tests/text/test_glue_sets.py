"""`d2v data glue` with small files of the official layout, from a server on this machine."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from serving import Served, serving

from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.core.files.downloads import DownloadError
from d2v.core.labels import Classes
from d2v.text import SentenceDataConfig
from d2v.text.sentences.glue import GLUE_TASKS, GlueTask
from d2v.text.sentences.glue_sets import GLUE_SETS, prepare

RTE = {
    "train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tC.\tD.\tnot_entailment\n",
    "dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tE.\tF.\tentailment\n",
    "test.tsv": "index\tsentence1\tsentence2\n0\tG.\tH.\n",
}
HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
MRPC = {
    "msr_paraphrase_train.txt": HEADER + '1\t11\t12\tHe said "go.\tShe left.\r\n0\t13\t14\ta\tb\r\n1\t15\t16\tc\td\r\n',
    "msr_paraphrase_test.txt": HEADER + "0\t17\t18\te\tf\r\n1\t19\t20\tg\th\r\n",
    "mrpc_dev_ids.tsv": "13\t14\n",
}


def zipped(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def with_digests(monkeypatch: pytest.MonkeyPatch, task: GlueTask, files: dict[str, bytes]) -> None:
    """The table of the command has the digests of these files."""
    one = GLUE_SETS[task]
    sources = tuple(
        evolve(source, digest=f"sha256:{hashlib.sha256(files[f'/{source.name}']).hexdigest()}")
        for source in one.sources
        if f"/{source.name}" in files
    )
    monkeypatch.setitem(GLUE_SETS, task, evolve(one, sources=sources or one.sources))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    extra = {"RTE/": "", "RTE/original/x.txt": "not used", "../outside.tsv": "must not be written"}
    files = {"/RTE.zip": zipped({f"RTE/{name}": content for name, content in RTE.items()} | extra)}
    files |= {f"/{name}": content.encode() for name, content in MRPC.items()}
    for task in ("rte", "mrpc"):
        with_digests(monkeypatch, task, files)
    with serving(Served(files)) as one:
        yield one


def run(dest: Path, served: Served, *tasks: str) -> int:
    return main(["data", "glue", str(dest), "--tasks", *tasks, "--mirror", f"{served.address}/"])


def test_files_are_ready_for_training(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "glue"
    assert run(dest, served, "rte", "mrpc") == 0
    assert f"{dest}/RTE: written" in capsys.readouterr().out
    assert sorted(path.relative_to(dest).as_posix() for path in dest.rglob("*.*")) == [
        f"{folder}/{name}.tsv" for folder in ("MRPC", "RTE") for name in ("dev", "test", "train")
    ]
    assert not (tmp_path / "outside.tsv").exists()
    assert (dest / "RTE/train.tsv").read_text() == RTE["train.tsv"]
    data = SentenceDataConfig(path=str(dest / "RTE"), glue="rte")
    assert data.labels(Classes) == Classes(("entailment", "not_entailment"))
    assert dict(data.contents().splits) == {"train": 2, "dev": 1, "test": 1}
    asked = len(served.asked)
    assert run(dest, served, "rte", "mrpc") == 0
    assert f"{dest}/RTE: complete" in capsys.readouterr().out
    assert len(served.asked) == asked


def test_mrpc_is_divided_by_the_list(served: Served, tmp_path: Path) -> None:
    assert run(tmp_path, served, "mrpc") == 0
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    train = header + '1\t11\t12\tHe said "go.\tShe left.\n1\t15\t16\tc\td\n'
    assert (tmp_path / "MRPC/train.tsv").read_text() == train
    assert (tmp_path / "MRPC/dev.tsv").read_text() == header + "0\t13\t14\ta\tb\n"
    assert (tmp_path / "MRPC/test.tsv").read_text().splitlines()[1:] == ["0\t17\t18\te\tf", "1\t19\t20\tg\th"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("mrpc_dev_ids.tsv", "77\t78\n", "not the list"),
        ("msr_paraphrase_train.txt", HEADER + "1\t11\t12\ta\n", "line 2: 4 columns"),
    ],
)
def test_other_files_of_mrpc(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, word: str
) -> None:
    served.files[f"/{name}"] = content.encode()
    with_digests(monkeypatch, "mrpc", served.files)
    with pytest.raises(DataError, match=word):
        prepare("mrpc", tmp_path, mirror=served.address)
    assert not (tmp_path / "MRPC").exists()
    assert not list(tmp_path.glob(".MRPC*"))


def test_an_interrupted_download_is_resumed(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served.lost_after = 100
    assert run(tmp_path, served, "rte") != 0
    assert "100 of" in capsys.readouterr().err
    served.lost_after = None
    assert run(tmp_path, served, "rte") == 0
    assert served.asked[-1] == ("/RTE.zip", "bytes=100-")


def test_another_digest(served: Served, tmp_path: Path) -> None:
    served.files["/RTE.zip"] += b"more"
    with pytest.raises(DownloadError, match="sha256 digest"):
        prepare("rte", tmp_path, mirror=served.address)
    assert not (tmp_path / "RTE").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"no archive", "cannot be unpacked"), (zipped({"RTE/train.tsv": "a"}), r"no file .*RTE/dev.tsv")],
)
def test_other_archives(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, word: str
) -> None:
    served.files["/RTE.zip"] = content
    with_digests(monkeypatch, "rte", served.files)
    with pytest.raises(DataError, match=word):
        prepare("rte", tmp_path, mirror=served.address)
    assert not (tmp_path / "RTE").exists()


def test_unknown_tasks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "glue", str(tmp_path), "--tasks", "wnli"]) == 2
    assert "sst_2" in capsys.readouterr().err


def test_the_official_addresses() -> None:
    assert tuple(GLUE_SETS) == GLUE_TASKS
    sources = [source for one in GLUE_SETS.values() for source in one.sources]
    assert all(source.address.startswith("https://dl.fbaipublicfiles.com/") for source in sources)
    assert all(len(source.digest) == len("sha256:") + 64 for source in sources)
    assert len({source.digest for source in sources}) == len(sources) == 10
