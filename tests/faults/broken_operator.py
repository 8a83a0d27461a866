"""The operator, deliberately broken: a removal by absence isn't confirmed by a fresh read. The oracle must catch it.

Takes the command line of `consul-registrar`.
"""

from consul_registrar.cli import main
from consul_registrar.facts import Facts
from consul_registrar.gather import Gatherer


async def believed(_: Gatherer, facts: Facts) -> Facts:
    """What the caches say, once more."""
    return facts


Gatherer.afresh = believed  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
