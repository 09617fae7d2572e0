"""The `rdata` command."""

from __future__ import annotations

import pytest

import rdata
from rdata.cli.main import main


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"rdata {rdata.__version__}, Python 3.")


def test_an_unknown_argument_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--verson"])
    assert ended.value.code == 2
    assert "--verson" in capsys.readouterr().err


def test_without_arguments_it_says_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--help" in capsys.readouterr().err
