"""Prints a bill of materials (CycloneDX) of the image that this runs in, by its own Python: `python3 - < sbom.py`."""

import json
import platform
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from consul_registrar import __version__

PACKAGES = Path("/usr/share/consul-registrar/system-packages")


def component(kind: str, name: str, version: str, purl: str, licence: str = "") -> dict[str, object]:
    """One part, in CycloneDX' words."""
    made: dict[str, object] = {"type": kind, "name": name, "version": version, "purl": purl, "bom-ref": purl}
    return made | ({"licenses": [{"license": {"name": licence}}]} if licence else {})


def python_part(found: Distribution) -> dict[str, object]:
    """A package of PyPI's."""
    name = found.metadata["Name"]
    licence = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{found.version}"
    return component("library", name, found.version, purl, licence.splitlines()[0] if licence else "")


def system_parts() -> list[dict[str, object]]:
    """Debian's packages, of which the interpreter's libraries come."""
    rows = (line.split() for line in PACKAGES.read_text().splitlines())
    return [component("library", name, version, f"pkg:deb/debian/{name}@{version}") for name, version in rows]


def main() -> None:
    """Print it."""
    version = platform.python_version()
    parts = [
        component("platform", "python", version, f"pkg:generic/python@{version}"),
        *sorted((python_part(found) for found in distributions()), key=lambda part: str(part["purl"])),
        *system_parts(),
    ]
    itself = component("application", "consul-registrar", __version__, f"pkg:pypi/consul-registrar@{__version__}")
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": itself}}
    json.dump(bill | {"components": parts}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
