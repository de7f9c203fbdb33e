"""A look into PyTorch files before they are loaded: they hold tensors by name, and no more than the file fills.

``torch.load(weights_only=True)`` runs no code, but it takes as much memory as a file asks for. What a state dictionary
needs of the pickle format is little; everything else is refused here, without being loaded.
"""

import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

_LARGEST = 2**24  # bytes of the names and shapes, without the numbers; those of large nets take 0.1 of it
_LEGACY_PICKLES = 5  # magic number, protocol, machine, tensors, order of the storages
_ITEM_BYTES = {
    **{"Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2},
    **{"Char": 1, "Byte": 1, "Bool": 1},
}
_STORAGES = {f"torch {name}Storage": size for name, size in _ITEM_BYTES.items()}
_CALLS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
    | {"torch._utils _rebuild_tensor"}
)
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1"})
_OTHERS = frozenset(
    {
        "PROTO",
        "STOP",
        "MARK",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_TUPLE",
        "REDUCE",
        "BUILD",
    }
    | {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPERSID"}
)
_NAMED = ("text", "storage", "text", "text", "number")

Token = tuple[str, Any]


def check_pickles(path: Path) -> None:
    """Raises ValueError unless a PyTorch file holds a state dictionary, and storages that fit into the file.

    Args:
        path: A file that ``torch.save`` wrote, as an archive (torch 1.6 and later) or in the format before that.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            streams = [BytesIO(_archived(path))]
        else:
            file.seek(0)
            streams = [BytesIO(file.read(_LARGEST))] * _LEGACY_PICKLES
    sizes: dict[str, int] = {}
    for stream in streams:
        sizes |= _storages(_tokens(stream))
    if sum(sizes.values()) > length:
        raise ValueError(f"it promises {sum(sizes.values()):,} bytes of tensors and has {length:,}")


def _archived(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        names = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if packed or len(names) != 1 or not names[0].file_size == names[0].compress_size <= _LARGEST:
            raise ValueError("it is no archive of torch.save")
        return archive.read(names[0])


def _tokens(stream: BytesIO) -> list[Token]:
    """What the next pickle of a stream would do, its memory resolved."""
    tokens: list[Token] = []
    memory: dict[Any, Token] = {}
    for operation, argument, _ in pickletools.genops(stream):
        name = operation.name
        if name in ("BINPUT", "LONG_BINPUT"):
            memory[argument] = tokens[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            tokens.append(memory[argument])
        elif name in _NUMBERS:
            tokens.append(("number", argument))
        elif name == "BINUNICODE":
            tokens.append(("text", argument))
        elif name == "GLOBAL" and (argument in _STORAGES or argument in _CALLS):
            tokens.append(("storage" if argument in _STORAGES else "call", argument))
        elif name in _OTHERS:
            tokens.append((name, None))
        else:
            raise ValueError(f"it holds {name} {argument!r}"[:80] + ", expected tensors by name alone")
    return tokens


def _storages(tokens: list[Token]) -> dict[str, int]:
    """Bytes of each storage; a tuple of a word, its type, name, device and count names one, and nothing else does."""
    sizes = {}
    for place, (kind, value) in enumerate(tokens):
        if kind != "storage":
            continue
        part = tokens[max(0, place - 1) : place + 7]
        kinds = tuple(name for name, _ in part)
        if kinds[:7] != (*_NAMED, "TUPLE", "BINPERSID") and kinds != (*_NAMED, "NONE", "TUPLE", "BINPERSID"):
            raise ValueError("it names its tensors in another way than torch.save does")
        sizes[part[2][1]] = max(0, part[4][1]) * _STORAGES[value]
    return sizes
