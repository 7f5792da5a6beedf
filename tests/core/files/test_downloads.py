"""Downloads from a server on this machine: resumed, started again, damaged, refused."""

import hashlib
from pathlib import Path

import pytest
from serving import Served, serving

from d2v.core.files.downloads import DownloadError, download

CONTENT = bytes(range(256)) * 20
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def interrupted(served: Served, target: Path, after: int) -> None:
    """Lose the connection of a download."""
    served.lost_after = after
    with pytest.raises(DownloadError, match=f"{after} of {len(CONTENT)} bytes; run"):
        download(f"{served.address}/file", target, digest=DIGEST)
    served.lost_after = None
    assert not target.exists()
    assert target.with_name("file.part").read_bytes() == CONTENT[:after]


def test_a_lost_connection_is_resumed(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with serving(Served({"/file": CONTENT})) as served:
        interrupted(served, target, 3000)
        seen: list[tuple[int, int | None]] = []
        download(f"{served.address}/file", target, digest=DIGEST, progress=lambda *one: seen.append(one))
    assert served.asked == [("/file", None), ("/file", "bytes=3000-")]
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert seen[0][0] > 3000
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_server_without_parts_sends_all_again(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with serving(Served({"/file": CONTENT}, parts=False)) as served:
        interrupted(served, target, 3000)
        download(f"{served.address}/file", target, digest=DIGEST)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_complete_is_checked_and_renamed(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    with serving(Served({"/file": CONTENT})) as served:
        download(f"{served.address}/file", tmp_path / "file", digest=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_existing_file_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with serving(Served({})) as served:
        download(f"{served.address}/file", tmp_path / "file", digest=DIGEST)
    assert served.asked == []
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("left", [b"", b"x" * 10, b"x" * 9999], ids=["nothing", "other part", "too long"])
def test_a_damaged_file_is_deleted_and_the_next_call_starts_afresh(tmp_path: Path, left: bytes) -> None:
    if left:
        (tmp_path / "file.part").write_bytes(left)
    with serving(Served({"/file": CONTENT if left else CONTENT[1:]})) as served:
        with pytest.raises(DownloadError, match=r"/file has .* digest") as caught:
            download(f"{served.address}/file", tmp_path / "file", digest=DIGEST)
        assert list(tmp_path.iterdir()) == []
        assert DIGEST.removeprefix("sha256:") in str(caught.value)
        if not left:
            assert hashlib.sha256(CONTENT[1:]).hexdigest() in str(caught.value)
        served.files["/file"] = CONTENT
        download(f"{served.address}/file", tmp_path / "file", digest=DIGEST)
    assert served.asked[-1] == ("/file", None)


def test_a_server_that_refuses_or_is_not_there(tmp_path: Path) -> None:
    with serving(Served({})) as served, pytest.raises(DownloadError, match=f"{served.address}/none.* 404"):
        download(f"{served.address}/none", tmp_path / "file", digest=DIGEST)
    with pytest.raises(DownloadError, match=f"{served.address}/file cannot be reached.*refused"):
        download(f"{served.address}/file", tmp_path / "file", digest=DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_files_of_this_machine_are_not_addresses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="http"):
        download((tmp_path / "file").as_uri(), tmp_path / "copy", digest=DIGEST)
