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
from devcluster.tools import CONSUL, COREDNS

HERE = Path(__file__).parent
PAUSE, DNS = "localhost/pause:1", "localhost/coredns:1"
USER = "65532:65532"

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def consul_image() -> str:
    """The name under which a registry would have the same Consul."""
    return f"docker.io/hashicorp/consul:{CONSUL.version.removeprefix('v')}"


def ensure_images(folder: Path) -> None:
    """Make what is missing of the images that every node has: pause, DNS, Consul. Takes seconds."""
    ensure_tools(print, (COREDNS, CONSUL))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pause.tar").exists():
        compiled = folder / "pause"
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", compiled, HERE / "pause.c"], check=True)
        write_image(folder / "pause.tar", PAUSE, {"/pause": compiled}, ["/pause"])
    for image, tool, writable in ((DNS, COREDNS, ()), (consul_image(), CONSUL, ("/consul/data",))):
        name, target = tool.name, folder / f"{tool.folder.name}.tar"
        if not target.exists():
            write_image(target, image, {f"/bin/{name}": tool.path()}, [f"/bin/{name}"], writable)


def write_image(
    target: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str], writable: Sequence[str] = ()
) -> None:
    """One image of one layer: files by their path in it, all executable; `writable` are folders."""
    blobs: dict[str, bytes] = {}
    layer = _layer(files, writable)
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


def _layer(files: Mapping[str, Path], folders: Sequence[str]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for folder in folders:
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
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
