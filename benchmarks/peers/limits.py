"""The minimum for any tap in Python: decompress the file and, with `--decode`, decode it too."""

from __future__ import annotations

import sys

import msgspec
from isal.igzip import GzipFile

from benchmarks.peers.export import open_export, read_config

_BLOCK_BYTES = 256 * 1024


class _Contact(msgspec.Struct, gc=False):
    id: int
    email: str | None
    name: str | None
    phone: str | None
    location: str | None


class _WideContact(_Contact, gc=False):
    comet_tokens: list[str | None] | None
    emails: list[str | None] | None


def main() -> None:
    """Read the file and print the number of its lines."""
    config = read_config()
    wide = config.get("include_comet_tokens", False)
    decoder = msgspec.json.Decoder(_WideContact if wide else _Contact)
    decode = "--decode" in sys.argv
    count = 0
    rest = b""
    with GzipFile(fileobj=open_export(config)) as file:  # type: ignore[no-untyped-call]
        while block := file.read(_BLOCK_BYTES):
            if not decode:
                count += block.count(b"\n")
                continue
            end = block.rfind(b"\n") + 1
            count += len(decoder.decode_lines(rest + block[:end]))
            rest = block[end:]
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()
