"""Run as a script: ``bound.py PARENT COMMAND...`` becomes COMMAND, and is killed when PARENT ends.

However that ends, by SIGKILL too. Strictly it is the thread that started the script: it must live
as long as the command shall. Without Linux the command is just run.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become ``command``, a child of the process ``parent``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(f"process {parent} had ended before {command[0]} was run")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
