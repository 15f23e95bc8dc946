"""Numbers of command lines, as `type` of an argument; what is none is named by argparse."""

import argparse


def number(text: str) -> float:
    """Any; also an infinite one."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def positive(text: str) -> float:
    """Above 0 and finite."""
    if not 0 < (value := number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def not_negative(text: str) -> float:
    """0 or more, and finite."""
    if not 0 <= (value := number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return value


def share(text: str) -> float:
    """From 0 to 1."""
    if not 0 <= (value := number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


def fraction(text: str) -> float:
    """Above 0 and below 1."""
    if not 0 < (value := number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1, both left out")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or not (value := int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value
