"""py-consul is imported without what nobody uses of it."""

import subprocess
import sys


def test_requests_is_not_imported() -> None:
    probe = "import consul_registrar.app, sys; sys.exit('requests' in sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_whoever_wants_the_synchronous_transport_finds_it() -> None:
    probe = "import consul_registrar.consul, consul.std, sys; sys.exit(not consul.std.Consul)"
    subprocess.run([sys.executable, "-c", probe], check=True)
