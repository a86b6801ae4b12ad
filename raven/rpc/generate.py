"""Generate `raven/rpc/pb` from `proto/` (needs the `dev` extra): `make proto`.

The package of the generated code is `raven.rpc.pb`, not the `raven.v1` of the proto files, which keep the import
path that other languages expect; so the generated imports are rewritten.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
FILES = ("raven/v1/market_data.proto", "raven/v1/control.proto")


def generate(out: Path) -> None:
    """Write the generated modules into the folder `out`; raises RuntimeError when protoc fails."""
    from grpc_tools import protoc  # noqa: PLC0415 - only the dev extra has it

    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{PROTO}", *outputs, *FILES]) != 0:
            raise RuntimeError(f"protoc failed on {', '.join(FILES)}")
        for module in sorted(Path(scratch, "raven", "v1").iterdir()):
            text = module.read_text().replace("from raven.v1 import", "from raven.rpc.pb import")
            (out / module.name).write_text(text)


if __name__ == "__main__":
    target = ROOT / "raven" / "rpc" / "pb"
    generate(target)
    sys.stdout.write(f"generated {target}\n")
