"""The package's tiny random checkpoints, under the name the tests know."""

from lvspec_sglang.tiny import *  # noqa: F403
