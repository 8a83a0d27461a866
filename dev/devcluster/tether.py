"""Replaces itself with another program that dies together with the process that started it.

Run as a script, with the starter's PID first: `tether.py PID PROGRAM ARGUMENT...`. The kernel sends SIGKILL when the
starter ends in whatever way, so a test run that is killed leaves nothing running. A script of its own, since Python
code between fork and exec is not safe in a program with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the program."""
    starter, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != starter:
        sys.exit("the starter has ended already")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
