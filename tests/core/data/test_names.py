"""Names of samples as text."""

from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import BrokenSampleError, Contents, escaped, unescaped
from d2v.core.data.broken import error_reason

BYTES = st.binary().map(lambda name: name.decode("utf-8", "surrogateescape"))


@given(BYTES | st.text())
def test_a_name_is_one_line_of_utf_8_and_comes_back(name: str) -> None:
    text = escaped(name)
    text.encode("utf-8")
    assert len(text.splitlines()) <= 1
    assert unescaped(text) == name


def test_names_without_oddities_are_left_alone() -> None:
    for name in ("a b.png", "café.png", "日本\u3000語.png", "🙂.png", "a'b,c.png"):
        assert escaped(name) == name


def test_messages_of_broken_samples_are_one_line_each() -> None:
    assert error_reason(BrokenSampleError("a\nb\udce9.png", "bad\nfile"), 0) == ("a\\nb\\xe9.png", "bad file")
    assert error_reason(FileNotFoundError(2, "No such file", "a\nb"), 0) == ("a\\nb", "No such file")


def test_contents_are_one_line_with_the_first_names() -> None:
    names = tuple(f"{number}\n.txt" for number in range(5))
    found = Contents(path="a\nb", splits={"val": 1}, unused={".txt files": names}, unit="images", listed_by="look a")
    shown = "0\\n.txt, 1\\n.txt, 2\\n.txt, ..."
    assert found.line() == (
        f"a\\nb: 1 image (val 1), no classes; not used: .txt files 5 ({shown}); all names: `look a`"
    )
    assert len(found.listing().splitlines()) == 6
