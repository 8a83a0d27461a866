"""`make bench`: both modes, one after the other; a table and `build/bench.json`; exit code 0 even if a budget is over.

make bench                          all of it, at the design's sizes: about a quarter of an hour
make bench PODS=1000                smaller
make bench ONLY=catalog-cold,agent  some of it, by the beginnings of names
make bench ONLY=catalog-soak        restarts under changes, then ten minutes of calm; only where it is named
make bench STRICT=1                 exit code 1 where a budget is over, or something could not be measured
"""

import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import uvloop

from bench.agents import Agents
from bench.catalog import Catalog
from bench.figures import Report, machine
from bench.process import REPOSITORY
from bench.stage import staged

AGENTS = 10
RESULT = REPOSITORY / "build" / "bench.json"


@click.command()
@click.option("--pods", default=10_000, help="Pods in catalog mode; the other sizes are parts of it.")
@click.option("--agent-pods", default=1_000, help="Pods over ten agents; restarts are measured at --pods.")
@click.option("--only", default="", help="Comma-separated beginnings of names: catalog-cold, agent, …")
@click.option("--before", default="", help="The version that is upgraded from; default: the last release.")
@click.option("--keep", is_flag=True, help="Keep the folder with the logs.")
@click.option("--strict", is_flag=True, help="End with 1 where a budget is over.")
def main(pods: int, agent_pods: int, only: str, before: str, keep: bool, strict: bool) -> None:
    """Measure every budget."""
    sizes = {"few": pods // 10, "some": pods // 5, "many": pods, "most": 2 * pods, "agent": agent_pods}
    report = Report(machine(), sizes)
    folder = Path(tempfile.mkdtemp(prefix="consul-registrar-bench-"))
    try:
        uvloop.run(_measure(report, folder, only, before))
    finally:
        report.write(RESULT)
        report.show()
        if keep:
            click.echo(f"logs: {folder}")
        else:
            shutil.rmtree(folder)
    if strict and (report.failed or any(figure.holds is False for figure in report.figures)):
        sys.exit(1)


async def _measure(report: Report, folder: Path, only: str, before: str) -> None:
    for kind, agents in ((Catalog, 0), (Agents, AGENTS)):
        known = (*kind.steps, *(kind.at_length if only else ()))
        steps = [step for step in known if _wanted(_named(kind.mode, step), only)]
        if not steps:
            continue
        async with staged(kind.mode, folder / kind.mode, agents) as stage:
            measures = kind(stage, report, report.sizes, before)
            for step in steps:
                await _step(_named(kind.mode, step), getattr(measures, step), report)


def _named(mode: str, step: str) -> str:
    return f"{mode}-{step}".replace("_", "-")


def _wanted(name: str, only: str) -> bool:
    """Whether it is named, or begins with what is named; all are where nothing is."""
    return not only or any(name.startswith(each) for each in only.replace(" ", "").split(","))


async def _step(name: str, step: Callable[[], Awaitable[None]], report: Report) -> None:
    """One measurement; what fails leaves the others alone, and is said."""
    began, before = time.monotonic(), len(report.figures)
    try:
        await step()
    except Exception as error:
        report.failed[name] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    click.echo(f"{name}: {time.monotonic() - began:.0f} s", err=True)
    for figure in report.figures[before:]:
        click.echo(f"    {figure.name}: {figure.value:.4g} {figure.unit} (≤ {figure.budget})", err=True)


if __name__ == "__main__":
    main()
