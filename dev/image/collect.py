"""Collects what the operator needs to run, into one folder: Python, its libraries, and what those are linked to.

Run in the image's build stage by the very Python that is collected: `collect.py VENV TARGET`. What isn't collected
(a shell, a package manager, pip, compilers) isn't in the image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

#: Of the standard library: what only people, builds and tests need.
LEFT_OUT = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests",
    "tkinter", "turtledemo",
}  # fmt: skip
#: Where it is noted which of Debian's packages the rest comes from: name and version, for the bill of materials.
PACKAGES = "/usr/share/consul-registrar/system-packages"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def collect(venv: Path, target: Path) -> None:
    """Copy everything to the same paths below the target, and compile what is Python."""
    *links, python = _steps(venv / "bin" / "python3")
    library = Path(sysconfig.get_path("stdlib"))
    _copy_tree(library, target)
    _copy_tree(venv, target)
    extensions = ("/" / file.relative_to(target) for file in target.rglob("*.so*"))
    system = [python, Path(CERTIFICATES), *sorted(_linked((python, *extensions)))]
    for link in links[1:]:  # the first is in the virtual environment
        _copy(link, target, follow=False)
    for file in system:
        _copy(file, target)
    _write(target, PACKAGES, "".join(f"{package}\n" for package in sorted(_packages(system))))
    _compile([library, venv], target)
    _write(target, "/etc/passwd", "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")
    _write(target, "/etc/group", "nonroot:x:65532:\n")
    subprocess.run(["ldconfig", "-r", target], check=True)
    (target / "tmp").mkdir(mode=0o1777)


def _copy_tree(folder: Path, target: Path) -> None:
    place = target / folder.relative_to("/")
    shutil.copytree(folder, place, symlinks=True, ignore=_ignored(folder), dirs_exist_ok=True)


def _ignored(folder: Path) -> Callable[[str, list[str]], set[str]]:
    """Below a virtual environment only caches: its site-packages are the point."""
    in_venv = (folder / "pyvenv.cfg").exists()

    def ignore(_: str, names: list[str]) -> set[str]:
        unwanted = {"__pycache__"} if in_venv else LEFT_OUT
        return {name for name in names if name in unwanted or (name.startswith("config-") and not in_venv)}

    return ignore


def _copy(file: Path, target: Path, *, follow: bool = True) -> None:
    place = target / file.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, place, follow_symlinks=follow)


def _steps(link: Path) -> Iterator[Path]:
    """A path, and what it leads to step by step; the last is a file."""
    yield link
    while link.is_symlink():
        link = link.parent / link.readlink()
        yield link


def _linked(programs: Iterable[Path]) -> set[Path]:
    """The libraries that programs are linked to, the loader included, by the paths that they are asked for."""
    found: set[Path] = set()
    for program in programs:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        paths = re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE)
        found |= {Path(path) for path in paths if not path.startswith("/opt/")}
    return found


def _packages(files: Iterable[Path]) -> set[str]:
    """The packages of Debian's that these files belong to; what was built for the base belongs to none."""
    owned = {path for file in files for path in (str(file), str(file.resolve()), f"/usr{file}")}
    said = subprocess.run(["dpkg", "-S", *sorted(owned)], capture_output=True, text=True, check=False).stdout
    owners = [line for line in said.splitlines() if not line.startswith("diversion by ")]
    names = sorted({line.split(":")[0] for line in owners})
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\\n", *names]
    return set(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines())


def _compile(folders: Iterable[Path], target: Path) -> None:
    """Bytecode that is taken as it is, so that a start needs no time for it and a build can be repeated."""
    places = [str(target / folder.relative_to("/")) for folder in folders]
    options = ["-q", "-q", "--invalidation-mode=unchecked-hash", "-s", str(target), "-p", "/"]
    subprocess.run([sys.executable, "-m", "compileall", *options, *places], check=True)


def _write(target: Path, path: str, text: str) -> None:
    place = target / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


if __name__ == "__main__":
    collect(Path(sys.argv[1]), Path(sys.argv[2]))
