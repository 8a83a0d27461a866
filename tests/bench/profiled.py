"""Runs a program under cProfile by CPU time: `profiled.py FILE SCRIPT ARGUMENT...`; the waiting counts nothing."""

import cProfile
import runpy
import sys
import time


def main() -> None:
    result, script = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    profile = cProfile.Profile(time.process_time)
    try:
        profile.runcall(runpy.run_path, script, run_name="__main__")
    finally:
        profile.dump_stats(result)


if __name__ == "__main__":
    main()
