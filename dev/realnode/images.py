"""Makes images for the node from programs that are built here, without a registry, a daemon or a base image.

An image is an OCI image layout in a tar file, which `ctr images import` takes: one layer with the files given. Which
images the node itself needs is said here; the operator's own is built from the Dockerfile (`dev/image`).
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.build import ensure_tools
from devcluster.tools import CONSUL, COREDNS, HTTP_ECHO, NODE_TOOLS

HERE = Path(__file__).parent
PAUSE, DNS = "localhost/pause:1", "localhost/coredns:1"
#: The names under which a registry has the same programs, as the examples ask for them.
CONSUL_SERVER = f"docker.io/hashicorp/consul:{CONSUL.version.removeprefix('v')}"
ECHO = "docker.io/hashicorp/http-echo:1.0"
USER = "65532:65532"

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def ensure_images(folder: Path) -> None:
    """Make what is missing of the images that every node has: pause, DNS, and what the examples run. Takes seconds."""
    ensure_tools(print, (*NODE_TOOLS, CONSUL))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pause.tar").exists():
        compiled = folder / "pause"
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", compiled, HERE / "pause.c"], check=True)
        write_image(folder / "pause.tar", PAUSE, {"/pause": compiled}, ["/pause"])
    for image, tool, program in (
        (DNS, COREDNS, "/bin/coredns"),
        (CONSUL_SERVER, CONSUL, "/bin/consul"),
        (ECHO, HTTP_ECHO, "/http-echo"),
    ):
        target = folder / f"{tool.folder.name}.tar"
        if not target.exists():
            write_image(target, image, {program: tool.path()}, [program])


def write_image(target: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
    """One image of one layer: files by their path in it, all executable."""
    blobs: dict[str, bytes] = {}
    layer = _layer(files)
    config = {
        "architecture": _MACHINES[platform.machine()],
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": list(entrypoint), "User": USER},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _put(blobs, json.dumps(config).encode(), f"{_OCI}.config.v1+json"),
        "layers": [_put(blobs, layer, f"{_OCI}.layer.v1.tar")],
    }
    described = _put(blobs, json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "manifests": [{**described, "annotations": annotations}]}
    unfinished = target.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest.partition(':')[2]}", data)
    unfinished.rename(target)


def _layer(files: Mapping[str, Path]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for path, source in files.items():
            _add(tar, path.lstrip("/"), source.read_bytes(), mode=0o755)
    return written.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _put(blobs: dict[str, bytes], data: bytes, media: str) -> dict[str, object]:
    digest = _digest(data)
    blobs[digest] = data
    return {"mediaType": media, "digest": digest, "size": len(data)}
