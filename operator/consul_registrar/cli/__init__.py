"""The command `consul-registrar`."""

from consul_registrar.cli.main import main

__all__ = ["main"]
