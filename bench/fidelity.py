"""How much of the target's fact accuracy a verification rule keeps, and how much it accepts."""

import argparse


def run(arguments: argparse.Namespace) -> None:
    """Measure the rules and print the table."""
    raise ValueError("not measured yet: this bench is being written")
