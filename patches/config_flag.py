"""``--lvspec-config``, a flag of the server's own command line.

The host has no hook for a plugin's flags. The value travels to the server's processes in
``LVSPEC_CONFIG``, which is also how ``sglang.Engine`` is given it.
"""

import logging
import os
from typing import Any

from lvspec_sglang.config_json import CONFIG_ENV
from lvspec_sglang.patches.base import Patch

logger = logging.getLogger(__name__)


def add_flag(result: Any, parser: Any) -> Any:
    """Add the flag to the server's parser."""
    parser.add_argument(
        "--lvspec-config",
        help=f"LVSPEC: a JSON object, or the path of one (default: ${CONFIG_ENV}).",
    )
    return result


def export_flag(result: Any, cls: type, args: Any) -> Any:
    """Hand a given flag on to every process the server starts, and say where none reads it."""
    if getattr(args, "lvspec_config", None):
        os.environ[CONFIG_ENV] = args.lvspec_config
        if (args.speculative_algorithm or "").upper() != "LVSPEC":
            logger.warning("--lvspec-config does nothing without --speculative-algorithm LVSPEC")
    return result


_ARGUMENTS = "sglang.srt.server_args.ServerArgs"
_REASON = "LVSPEC's configuration has no place on the command line"
_UNTIL = "the host lets a plugin add server arguments"

PATCHES = (
    Patch(f"{_ARGUMENTS}.add_cli_args", ("parser",), add_flag, "AFTER", _REASON, _UNTIL),
    Patch(f"{_ARGUMENTS}.from_cli_args", ("args",), export_flag, "AFTER", _REASON, _UNTIL),
)
