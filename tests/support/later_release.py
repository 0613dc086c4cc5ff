"""The Debian package as a later release, changed by a test."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

RELEASES = "opt/tagtrail/releases"
Change = Callable[[Path], None]


def later(package: Path, version: str, folder: Path, change: Change = lambda release: None) -> Path:
    """Make `folder`/VERSION.deb from a package, with its kernels for where it will be installed; `change` is called
    with the folder of the release."""
    tree = folder / version
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    release = tree / "usr/lib/tagtrail/release"
    first = (release / "share/pyproject.toml").read_text().partition('\nversion = "')[2].partition('"')[0]
    for file in (release / "bin/tagtrail", release / "pyvenv.cfg"):
        file.write_text(file.read_text().replace(f"/{RELEASES}/{first}/", f"/{RELEASES}/{version}/"))
    for file, sign in ((release / "share/pyproject.toml", 'version = "{}"'), (tree / "DEBIAN/control", "Version: {}")):
        file.write_text(file.read_text().replace(sign.format(first), sign.format(version)))
    for metadata in release.glob("lib/python*/site-packages/tagtrail-*.dist-info/METADATA"):
        metadata.write_text(metadata.read_text().replace(f"\nVersion: {first}\n", f"\nVersion: {version}\n", 1))
    _rename_kernels(release, Path(f"/{RELEASES}/{first}"), Path(f"/{RELEASES}/{version}"))
    (release / ".complete").write_text(version)
    change(release)
    file = folder / f"{version}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", str(tree), str(file)], check=True, capture_output=True)
    shutil.rmtree(tree)
    return file


def _rename_kernels(release: Path, first: Path, home: Path) -> None:
    """Numba names a folder of its cache after the path of the source."""

    def named(folder: Path) -> str:
        return f"{folder.name}_{hashlib.sha1(str(folder).encode()).hexdigest()}"

    sources = [folder.relative_to(release) for folder in (release / "lib").rglob("*/") if folder.is_dir()]
    new = {named(first / source): named(home / source) for source in sources}
    for cache in (release / "numba").iterdir():
        cache.rename(cache.with_name(new[cache.name]))
