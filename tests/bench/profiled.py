"""Runs a program and notes where its CPU time goes: `profiled.py FILE SCRIPT ARGUMENT...`; the waiting counts nothing.

A sampler, since a tracing profiler makes what calls much look several times dearer than it is. FILE gets a line for
each stack that was met, outermost function first, and how often: the format of flame graphs (`flamegraph.pl`,
speedscope).
"""

import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

EVERY = 0.001
"""Seconds of CPU between two samples; the kernel rounds it up to its own tick."""


def main() -> None:
    result, script = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    stacks: Counter[tuple[CodeType, ...]] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        codes = []
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        stacks[tuple(reversed(codes))] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        lines = (f"{';'.join(map(_named, stack))} {count}\n" for stack, count in stacks.most_common())
        Path(result).write_text("".join(lines))


def _named(code: CodeType) -> str:
    return f"{code.co_qualname} ({'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno})"


if __name__ == "__main__":
    main()
