"""Damage to files: of bytes alone, and of what they mean (JSON, TOML, tables, headers of arrays and of tensors)."""

import ast
import gzip
import hashlib
import io
import json
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Files = dict[str, bytes]
Mutate = Callable[[Files, str, random.Random], Files]
"""From the files of a folder and the name of one of them to those that are to be replaced."""

NUMBERS = (0, 1, -1, 2, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 10**10, 10**12, 2**63 - 1, 2**63, 2**64 - 1, 10**30)
VALUES = (
    *(None, True, False, 1.5, -0.0, 1e308, float("inf"), float("nan"), "", "..", "../../x", "/etc/passwd", "a\0b"),
    *("a\nb", "\x1b[31m", "\ud800", "x" * 100_000, [], {}, [[]], {"a": {}}, *NUMBERS, 10**400, "float32", "O"),
)


class Bomb:
    """Unpickled, it makes a file; a reader that unpickles is found by it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.marker), "w")


def pickle_bomb(marker: Path, protocol: int = 2) -> bytes:
    """A pickle that makes the file ``marker``."""
    return pickle.dumps(Bomb(marker), protocol=protocol)


def damage(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """One to three changes of bytes."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        data = draw.choice(_CHANGES)(data, other, draw)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    """A position, more often near the beginning or the end, where headers are."""
    if not data:
        return 0
    near = draw.choice((16, 128, 1024, len(data)))
    offset = draw.randrange(min(near, len(data)))
    return offset if draw.random() < 0.6 else len(data) - 1 - offset


def _cut(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _flip(data: bytes, other: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start = _place(data, draw)
    fresh = draw.choice((bytes(8), b"\xff" * 8, draw.randbytes(draw.randrange(1, 17))))
    return data[:start] + fresh + data[start + len(fresh) :]


def _length(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """A whole number where a length may stand."""
    start, number = _place(data, draw), draw.choice(NUMBERS) % 2**64
    fresh = struct.pack(draw.choice("<>") + "Q", number)
    fresh = fresh[: draw.choice((2, 4, 8))] if draw.random() < 0.5 else fresh[-4:]
    return data[:start] + fresh + data[start + len(fresh) :]


def _splice(data: bytes, other: bytes, draw: random.Random) -> bytes:
    source = draw.choice((data, other))
    start, stop = sorted((_place(source, draw), _place(source, draw)))
    at = _place(data, draw)
    return data[:at] + source[start:stop] + data[at if draw.random() < 0.5 else at + stop - start :]


def _repeat(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start, stop = sorted((_place(data, draw), _place(data, draw)))
    return data[:stop] + data[start:stop] * draw.choice((1, 2, 20)) + data[stop:]


def _remove(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start, stop = sorted((_place(data, draw), _place(data, draw)))
    return data[:start] + data[stop:]


def _insert(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + bytes(draw.choice((1, 4, 8, 512, 4096))) + data[at:]


def _append(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data + draw.choice((b"\0", b"\n", b"x", other, bytes(4096)))


_CHANGES = (_cut, _flip, _flip, _flip, _overwrite, _length, _length, _splice, _repeat, _remove, _insert, _append)


def change_value(value: Any, draw: random.Random) -> Any:
    """A JSON value with one of its parts changed, removed, renamed or made hostile."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        how = draw.random()
        if how < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.2:
            return {("../" + k if k == key else k): v for k, v in value.items()}
        return {**value, key: change_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        if draw.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], change_value(value[at], draw), *value[at + 1 :]]
    if type(value) is int and draw.random() < 0.5:
        return value + draw.choice((1, -1, 1000))
    return draw.choice(VALUES)


def change_json(data: bytes, draw: random.Random) -> bytes:
    """JSON text whose value or spelling is changed."""
    if draw.random() < 0.03:
        return b"[" * 100_000
    if draw.random() < 0.03:
        return b'{"a":' * 100_000 + b"1"
    text = json.dumps(change_value(json.loads(data), draw))
    return re.sub(r"\d+", "9" * 5000, text, count=1).encode() if draw.random() < 0.03 else text.encode()


def json_file(files: Files, name: str, draw: random.Random) -> Files:
    """A JSON file, as :func:`change_json` changes it."""
    return {name: change_json(files[name], draw)}


def json_lines(files: Files, name: str, draw: random.Random) -> Files:
    """One line of a file of JSON lines."""
    lines = files[name].splitlines()
    at = draw.randrange(len(lines))
    lines[at] = change_json(lines[at], draw)
    return {name: b"\n".join(lines) + b"\n"}


def toml_file(files: Files, name: str, draw: random.Random) -> Files:
    """The value of one key of a flat TOML file, or its whole line."""
    lines = files[name].decode().splitlines()
    at = draw.randrange(len(lines))
    values = ('""', "[]", "{}", "nan", "inf", "-1", "0", "true", "1e999", "9" * 5000, '"../x"', '"\\u0000"', "[" * 5000)
    values += ('"""', "1979-05-27", "[[1]]", "'x'", '"' + "x" * 10_000 + '"', *(str(n) for n in NUMBERS))
    key = lines[at].split(" = ")[0]
    fresh = (f"{key} = {draw.choice(values)}", lines[at] + "\n" + lines[at], f"[{key}]", "", f"{key}.a.b = 1")
    lines[at] = draw.choice((fresh[0], fresh[0], fresh[0], *fresh[1:]))
    return {name: "\n".join(lines).encode()}


def csv_file(files: Files, name: str, draw: random.Random) -> Files:
    """One cell of a table, one row, or its header."""
    rows = [line.split(b",") for line in files[name].splitlines()]
    row = draw.choice(rows)
    cells = (b"", b"nan", b"inf", b"1e999", b"x", b'"a\nb"', b'"', b"\0", b"\xff", b"1_0", b"../a.png", b"\x1b[31m")
    row[draw.randrange(len(row))] = draw.choice((*cells, b"x" * 200_000, b"9" * 400, b",".join([b"a"] * 1000)))
    return {name: b"\n".join(b",".join(row) for row in rows) + draw.choice((b"\n", b"", b"\r\n\r\n", b'"'))}


def change_npy(data: bytes, draw: random.Random) -> bytes:
    """An array whose header tells something else, of the right length."""
    size = struct.unpack("<H", data[8:10])[0]
    head = ast.literal_eval(data[10 : 10 + size].decode())
    rows = head["shape"]
    shapes = (
        (10**12,),
        (*rows, 10**12),
        (0, *rows),
        (-1, *rows),
        (2**64,),
        rows[::-1],
        (1,) * 70,
        (True,),
        (),
        "x",
        None,
    )
    types = (
        "O",
        "<f8",
        ">f4",
        "<U1",
        "<U999999999",
        "S0",
        "V8",
        [("a", "<f4")],
        "(2,)f4",
        "<M8[s]",
        "?",
        "x",
        3,
        "<c8",
    )
    how = draw.randrange(5)
    if how == 0:
        head["shape"] = draw.choice(shapes)
    elif how == 1:
        head["descr"] = draw.choice(types)
    elif how == 2:
        head["fortran_order"] = draw.choice((True, 1, None, "x"))
    elif how == 3:
        head[draw.choice(("shape", "more"))] = draw.choice(VALUES)
    text = (
        repr(head)
        if how < 4
        else draw.choice(("(" * 5000, "{" * 300, repr(head).replace("(", "(0x", 1), "1_", "'\\d'"))
    )
    version = draw.choice((b"\x01\0", b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
    body = text.encode("latin1", "replace")[:60_000] + b"\n"
    length = struct.pack("<H" if version == b"\x01\0" else "<I", len(body))
    return b"\x93NUMPY" + version + length + body + data[10 + size :]


def npy_file(files: Files, name: str, draw: random.Random) -> Files:
    """An array, as :func:`change_npy` changes it."""
    return {name: change_npy(files[name], draw)}


def npz_file(files: Files, name: str, draw: random.Random) -> Files:
    """An archive packed again: other headers, names, ways of packing, members that are missing or too many."""
    with zipfile.ZipFile(io.BytesIO(files[name])) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = draw.randrange(len(members))
    key, data = members[at]
    how = draw.randrange(6)
    if how <= 2:
        members[at] = (key, change_npy(data, draw))
    elif how == 3:
        members[at] = (
            draw.choice(("../x.npy", "/etc/x.npy", "x\0.npy", "x", "é.npy", "a\nb.npy", "COM1.npy")),
            data,
        )
    elif how == 4:
        members.append(draw.choice((members[at], ("../y.npy", data), ("bomb.npy", data + bytes(10**7)), ("d/", b""))))
    else:
        members[at] = (
            key,
            draw.choice((b"", data[:50], data + b"\0", b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(10**6))),
        )
    out = io.BytesIO()
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(out, "w", draw.choice(ways)) as archive:
        for member, content in members:
            archive.writestr(zipfile.ZipInfo(member) if draw.random() < 0.1 else member, content)
    return {name: out.getvalue()}


def gz_file(files: Files, name: str, draw: random.Random) -> Files:
    """Other content, packed as it should be."""
    plain = gzip.decompress(files[name])
    return {name: gzip.compress(damage(plain, plain, draw), 1)}


def change_safetensors(data: bytes, draw: random.Random, edit: Callable[[Any], Any] | None = None) -> bytes:
    """Tensors whose header tells something else, of the right length."""
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size])
    types = ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X")
    if edit is not None:
        head = edit(head)
    elif draw.random() < 0.3:
        entry = head[draw.choice([key for key in head if key != "__metadata__"])]
        entry["dtype"] = draw.choice(types)
    elif draw.random() < 0.3:
        entry = head[draw.choice([key for key in head if key != "__metadata__"])]
        entry["shape"] = draw.choice(
            ([10**12], [0], [0, 10**18], [2**63, 2], [1, *entry["shape"]], entry["shape"][::-1], [])
        )
    else:
        head = change_value(head, draw)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def safetensors_file(files: Files, name: str, draw: random.Random) -> Files:
    """Tensors, as :func:`change_safetensors` changes them."""
    return {name: change_safetensors(files[name], draw)}


def checkpoint_file(files: Files, name: str, draw: random.Random) -> Files:
    """A file of a checkpoint with the hashes that a forger would write."""
    from fluvial.training.checkpoints import STATE_FILE, sealed

    folder, _, short = name.rpartition("/")
    where = f"{folder}/{STATE_FILE}"
    state = json.loads(files[where])
    if short == STATE_FILE:
        state = change_value(state, draw)
        return {where: sealed(state) if isinstance(state, dict) else json.dumps(state).encode()}
    if short not in state["files"]:
        return {name: damage(files[name], files[name], draw)}
    content = change_safetensors(files[name], draw)
    state["files"][short] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {name: content, where: sealed(state)}


def zip_member(files: Files, name: str, draw: random.Random) -> Files:
    """A member of an archive, damaged and packed again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(files[name])) as archive, zipfile.ZipFile(out, "w") as fresh:
        chosen = draw.choice(archive.namelist())
        for info in archive.infolist():
            content = archive.read(info)
            fresh.writestr(info.filename, damage(content, content, draw) if info.filename == chosen else content)
    return {name: out.getvalue()}
