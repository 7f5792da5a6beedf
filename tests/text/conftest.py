"""What tests of text tasks share: a pretrained model of seconds."""

from pathlib import Path

import pytest
from sentences import pretrained


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `text/small` with one block and a tokenizer of 300 ids."""
    return pretrained(tmp_path_factory.mktemp("text") / "run")
