"""The quickstart as the README has it: its very commands, but for those that make the cluster and load the image."""

from demo import quickstart
from e2e.e2e_world import NAMESPACE, RELEASE, World, eventually

_MAKES_THE_CLUSTER = ("kind ", "docker ")


def commands() -> list[str]:
    """The commands of the README's section on kind."""
    return [line for line in quickstart.commands() if not line.startswith(_MAKES_THE_CLUSTER)]


def test_the_readmes_commands_lead_to_three_instances_in_consul(bare: World) -> None:
    said = [bare.run("bash", "-euc", as_here(line, bare.image)) for line in commands()]
    assert "condition met" in said[-1]
    eventually(lambda: len(bare.found("web")) == 3)
    bare.kubectl("delete", "-f", "manifests/examples/02-web-three-lines.yaml", "--timeout=180s")
    bare.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")


def as_here(command: str, image: str) -> str:
    """The image has another name where it wasn't built by Docker."""
    repository, _, tag = image.rpartition(":")
    here = f"--set image.repository={repository},image.tag={tag}"
    return f"{command} {here}" if command.startswith("helm install") else command
