"""Service names as Consul compares them: without regard to case; pure.

DNS, the catalog and health answer for `payments`, `Payments` and `PAYMENTS` alike with the instances of all three; only
lists of services tell them apart (docs/decisions/0040). So a name is written as its author has it, and compared folded.
"""

#: Consul's servers register themselves under this name.
RESERVED = "consul"


def folded(service: str) -> str:
    """Equal for names that Consul takes for one. They are ASCII (`api.base.SERVICE_NAME`)."""
    return service.lower()
