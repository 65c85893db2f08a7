"""Types of command-line arguments, for argparse; a wrong one is named with its option."""

import argparse


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0")
    return int(text)


def positives(text: str) -> list[int]:
    """Whole numbers above 0, separated by commas."""
    return [positive(part.strip()) for part in text.split(",")]
