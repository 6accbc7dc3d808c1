"""An installed package of pure Python, packed as a wheel again for a computer without a network."""

import base64
import csv
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

from tools.errors import UserError


def distribution_of(module: str) -> metadata.Distribution:
    """Return the installed distribution that provides the module. Raises UserError where there is none."""
    names = metadata.packages_distributions().get(module, [])
    if not names:
        raise UserError(f"{module} is not installed here, so it cannot be taken along. pip install it first.")
    return metadata.distribution(names[0])


def pack(module: str, folder: Path) -> Path:
    """Write the wheel of the distribution that provides `module` below `folder`; it has the same bytes each time.

    The files are those of its RECORD, as installed. Raises UserError where it holds compiled code, which fits one kind
    of computer only, or where a file was changed since.
    """
    distribution = distribution_of(module)
    name, version = distribution.metadata["Name"].replace("-", "_"), distribution.version
    if "Root-Is-Purelib: true" not in (distribution.read_text("WHEEL") or ""):
        raise UserError(f"{name} {version} holds compiled code, so the wheel of this computer is of no use elsewhere.")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    record = io.StringIO()
    lines = csv.writer(record, lineterminator="\n")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in sorted(distribution.files or [], key=str):
            inside = file.as_posix()
            if ".." in file.parts or inside.endswith(
                (".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")
            ):
                continue  # scripts, caches, and the files that an installer adds
            data = Path(str(distribution.locate_file(file))).read_bytes()
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            if file.hash and file.hash.mode == "sha256" and file.hash.value != found:
                raise UserError(f"{distribution.locate_file(file)} was changed since {name} was installed.")
            _add(wheel, inside, data)
            lines.writerow([inside, f"sha256={found}", len(data)])
        inside = f"{name}-{version}.dist-info/RECORD"
        lines.writerow([inside, "", ""])
        _add(wheel, inside, record.getvalue().encode())
    return path


def _add(wheel: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    wheel.writestr(info, data)
