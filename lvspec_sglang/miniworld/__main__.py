"""`python -m lvspec_sglang.miniworld`: the `lvspec miniworld` command by itself."""

import argparse
import sys

from lvspec_sglang.miniworld.cli import add_commands

parser = argparse.ArgumentParser(prog="python -m lvspec_sglang.miniworld")
add_commands(parser)
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
