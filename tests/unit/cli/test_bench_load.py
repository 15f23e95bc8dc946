"""`r1-serve bench run` says to the load test what it was told."""

import argparse

import pytest

from loadtest.options import add_find_capacity
from orchestrator.cli.bench_load import add_load_capacity, add_load_run, arguments_of
from orchestrator.core import SpecError


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_load_capacity(parser)
    return parser.parse_args(arguments)


def test_every_option_reaches_the_load_test_as_it_was_given() -> None:
    given = parsed(
        *("--url", "http://x/v1", "--out", "o", "--insecure", "--seed=-3", "--key-env", "KEY"),
        *("--workload", "input=10,output=5", "--ttft-s", "2", "--within", "0.1"),
    )
    parser = argparse.ArgumentParser()
    add_find_capacity(parser)
    again = parser.parse_args(arguments_of(given))
    for name, value in vars(again).items():
        assert str(value) == str(getattr(given, name)), name


def test_an_slo_in_words_is_bounds_in_seconds() -> None:
    arguments = arguments_of(parsed("--url", "u", "--out", "o", "--slo", "ttft=2s,itl=50ms"))
    assert {"--ttft-s=2.0", "--itl-s=0.05"} <= set(arguments)
    with pytest.raises(SpecError, match="bound the same"):
        arguments_of(parsed("--url", "u", "--out", "o", "--slo", "ttft=2s", "--ttft-s", "1"))


def test_numbers_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_load_run(parser)
    for wrong in ("--rate=0", "--rate=x", "--share=1", "--workers=0", "--window-s=inf"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--url", "u", "--out", "o", wrong])
        assert wrong.partition("=")[0] in capsys.readouterr().err
