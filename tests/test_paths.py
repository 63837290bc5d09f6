"""Where things are kept, by the XDG base directory specification and our own variables."""

from __future__ import annotations

import pytest

from minicontainer import paths


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "/home/ann/.local/share"), ("relative", "/home/ann/.local/share"), ("/abs", "/abs")],
)
def test_an_ordinary_users_data(monkeypatch, value, expected):
    monkeypatch.delenv("MINICONTAINER_DATA", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_DATA_HOME", value)
    assert paths.data_dir() == f"{expected}/minicontainer"


def test_our_own_variable_may_be_relative(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINICONTAINER_DATA", "here")
    assert paths.data_dir() == f"{tmp_path}/here"
