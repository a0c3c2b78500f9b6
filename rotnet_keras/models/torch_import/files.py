"""Reading the tensors of a file of `torch.save`, without PyTorch and without running anything that the file says.

Such a file is a pickle, which names functions to call, beside the plain bytes of its tensors. `pickle` is not used
here: the few operations that a state dict needs are interpreted, and calls of anything but the builders of tensors are
refused.
"""

import io
import math
import mmap
import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rotnet_keras.errors import DataError

# What a file of PyTorch before 1.6 begins with, as a pickled number.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
# What files of other kinds begin with, and what they are.
ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}
DTYPES = {
    "HalfStorage": "f2", "FloatStorage": "f4", "DoubleStorage": "f8", "BoolStorage": "?", "ByteStorage": "u1",
    "CharStorage": "i1", "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8",
}  # fmt: skip
STORAGES = {f"torch{device}.{name}": dtype for name, dtype in DTYPES.items() for device in ("", ".cuda")}
BUILDERS = {
    "collections.OrderedDict", "torch.Size", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
}  # fmt: skip
# Operations that put their argument, or a constant, on the stack.
ARGUMENTS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Invalid(Exception):
    """The file does not have the form of `torch.save`; the message says where."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are cut from: `count` of them from `start` on, in the record `key`."""

    dtype: str
    key: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict, or of one under the key `network` as the authors' code saves it.

    Args:
        path: a file of `torch.save`: of PyTorch since 1.6, a zip archive, or of an earlier one.

    Returns:
        Arrays by name, in the types and shapes of the tensors; they are read-only, and together take as much memory as
        the file.

    Raises:
        DataError: the file is empty, cut off, of another kind, or asks for anything but tensors to be built.
    """
    if not path.is_file():
        raise DataError(f"no file {path.absolute()}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty; download or copy it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _refuse_other_kinds(path, data[:512])
        try:
            saved, records, order = _read_zip(file) if data[:4] == b"PK\x03\x04" else _read_legacy(data)
            return _arrays(path, saved, records, order)
        except _Invalid as error:
            raise DataError(f"{path}: not a PyTorch checkpoint that can be read safely: {error}") from None


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    kind = next((kind for magic, kind in ARCHIVES.items() if start.startswith(magic)), None)
    if start[257:262] == b"ustar":
        kind = "tar"
    if kind:
        how = f"tar -xf {path.name}" if kind in ("gzip", "bzip2", "xz", "tar") else "with the program that made it"
        raise DataError(f"{path}: a {kind} archive; unpack it first ({how}) and give the checkpoint in it")
    if start.lstrip()[:1] == b"<":
        raise DataError(f"{path}: a web page, not a checkpoint; the download went wrong, so download it again")
    if start.startswith(b"\x89HDF\r\n"):
        raise DataError(f"{path}: an HDF5 file, not a PyTorch checkpoint")


def _read_zip(file: Any) -> tuple[Any, dict[str, bytes], str]:
    """The saved object, the bytes of its storages by key, and the byte order."""
    try:
        contents = _zip_contents(file)
    except _Invalid:
        raise
    except Exception:  # zipfile fails in many ways where the positions in an archive are damaged.
        raise _Invalid("a zip archive that is damaged or cut off; download or copy it again") from None
    pickled = [name for name in contents if name.rpartition("/")[2] == "data.pkl"]
    if len(pickled) != 1:
        raise _Invalid("a zip archive without data.pkl; if it holds the checkpoint, unpack it first")
    folder = pickled[0].removesuffix("data.pkl")
    order = contents.get(f"{folder}byteorder", b"little").decode("latin-1")
    saved = _interpret(_operations(io.BytesIO(contents[pickled[0]])))
    storages = f"{folder}data/"
    return saved, {name.removeprefix(storages): data for name, data in contents.items()}, order


def _zip_contents(file: Any) -> dict[str, bytes]:
    """The bytes of each entry. `torch.save` compresses nothing: together they are never larger than the file."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise _Invalid("a compressed or encrypted zip archive, which torch.save does not write; unpack it first")
        if sum(entry.file_size for entry in entries) > file.seek(0, io.SEEK_END):
            raise _Invalid("a zip archive that is damaged: its entries are larger than the file")
        return {entry.filename: archive.read(entry) for entry in entries}


def _read_legacy(data: mmap.mmap) -> tuple[Any, dict[str, bytes], str]:
    """The same of a file of PyTorch before 1.6: five pickles, then each storage as its length and its numbers."""
    if _interpret(_operations(data)) != MAGIC_NUMBER:
        raise _Invalid("it does not begin as torch.save begins a file")
    _interpret(_operations(data))  # The version of the layout: 1001 since there are checkpoints of RotNet.
    system = _interpret(_operations(data))
    little = not isinstance(system, Mapping) or system.get("little_endian", True)
    storages: dict[str, _Storage] = {}
    saved = _interpret(_operations(data), storages)
    keys = _interpret(_operations(data))
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise _Invalid("the list of its storages is damaged")
    records = {}
    for key in keys:
        count = int.from_bytes(data.read(8), "little" if little else "big")
        length = count * np.dtype(storages[key].dtype).itemsize
        if length > len(data) - data.tell():
            raise _Invalid("it is cut off; download or copy it again")
        records[key] = data.read(length)
    return saved, records, "little" if little else "big"


def _operations(stream: Any) -> Iterator[tuple[str, Any]]:
    """The operations of the next pickle of a stream, each with its argument."""
    operations = pickletools.genops(stream)
    while True:
        try:
            operation, argument, _ = next(operations)
        except StopIteration:
            return
        except Exception as error:  # Other bytes than a pickle's fail in many ways.
            raise _Invalid(f"it is damaged or of another kind ({error})") from None
        yield operation.name, argument


def _interpret(operations: Iterator[tuple[str, Any]], storages: dict[str, _Storage] | None = None) -> Any:
    """Build the object of a pickle.

    Args:
        operations: of `_operations`.
        storages: the whole storages that the object refers to are added to it, by key.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    try:
        for name, argument in operations:
            if name == "STOP":
                return stack.pop()
            if name == "PROTO":
                continue
            if name == "MARK":
                marks.append(len(stack))
            elif name in ARGUMENTS:
                stack.append(argument)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name])
            elif name in ("EMPTY_DICT", "EMPTY_LIST"):
                stack.append({} if name == "EMPTY_DICT" else [])
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(_known_global(argument.replace(" ", ".")))
            elif name == "BINPERSID":
                stack.append(_storage(stack.pop(), {} if storages is None else storages))
            elif name == "REDUCE":
                arguments, builder = stack.pop(), stack.pop()
                stack.append(_call(builder, arguments))
            elif name == "BUILD":
                stack.pop()  # Attributes of the object, which arrays have no use for.
            else:
                _combine(name, stack, marks)
    except (IndexError, KeyError):  # Of the stack and the memo above: a pickle that is no pickle.
        raise _Invalid("its pickle is damaged") from None
    raise _Invalid("its pickle is cut off")


def _combine(name: str, stack: list[Any], marks: list[int]) -> None:
    """Replace what lies on the stack by a tuple, or add it to the list or dictionary below."""
    if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        first = len(stack) - int(name[-1])
    elif name in ("SETITEM", "APPEND"):
        first = len(stack) - (2 if name == "SETITEM" else 1)
    elif name in ("TUPLE", "APPENDS", "SETITEMS"):
        first = marks.pop()
    else:
        raise _Invalid(f"it uses the operation {name}, which a state dict does not need: it may be unsafe")
    if first < 0 or first > len(stack):
        raise IndexError
    values = stack[first:]
    del stack[first:]
    if name.startswith("TUPLE"):
        stack.append(tuple(values))
    elif name.startswith("APPEND") and isinstance(stack[-1], list):
        stack[-1].extend(values)
    elif name.startswith("SETITEM") and isinstance(stack[-1], dict):
        stack[-1].update(_pairs(zip(values[::2], values[1::2], strict=True)) if len(values) % 2 == 0 else _damaged())
    else:
        _damaged()


def _known_global(name: str) -> _Global:
    if name.startswith("torch.") and name.endswith("Storage") and name not in STORAGES:
        raise _Invalid(f"it holds tensors of {name}, which is not read; save network.float().state_dict()")
    if name not in BUILDERS and name not in STORAGES:
        raise _Invalid(
            f"it asks for {name}, so opening it as PyTorch does could run code. "
            "Save the weights alone: torch.save(network.state_dict(), FILE)"
        )
    return _Global(name)


def _storage(identifier: Any, storages: dict[str, _Storage]) -> _Storage:
    """The storage of a persistent identifier: ("storage", type, key, device, count[, view])."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise _Invalid("it refers to something other than tensors")
    kind, key, count = identifier[1], identifier[2], identifier[4]
    if not isinstance(kind, _Global) or kind.name not in STORAGES or not isinstance(key, str) or not _is_size(count):
        _damaged()
    whole = storages[key] = _Storage(STORAGES[kind.name], key, count)
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
        return whole
    if not isinstance(view, tuple) or len(view) != 3 or not _is_size(view[1]) or not _is_size(view[2]):
        _damaged()
    return _Storage(whole.dtype, key, view[2], view[1])


def _call(builder: Any, arguments: Any) -> Any:
    if not isinstance(builder, _Global) or not isinstance(arguments, tuple):
        _damaged()
    name = builder.name.rpartition(".")[2]
    if name == "OrderedDict":
        # Python 2 gives it the pairs, Python 3 sets them afterwards.
        pairs = arguments[0] if arguments else []
        if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            _damaged()
        return _pairs(pairs)
    if name == "Size" and len(arguments) == 1:
        return arguments[0]
    if name == "_rebuild_parameter" and arguments and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if name.startswith("_rebuild_tensor") and len(arguments) >= 4:
        storage, offset, size, stride = arguments[:4]
        if isinstance(storage, _Storage) and _is_size(offset) and _are_sizes(size) and _are_sizes(stride):
            return _Tensor(storage, offset, size, stride)
    return _damaged()


def _pairs(pairs: Any) -> dict[str | int, Any]:
    found = {}
    for key, value in pairs:
        if not isinstance(key, str | int):
            _damaged()
        found[key] = value
    return found


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= 8 and all(map(_is_size, values))


def _damaged() -> NoReturn:
    raise _Invalid("its pickle is damaged")


def _arrays(path: Path, saved: Any, records: Mapping[str, bytes], order: str) -> dict[str, np.ndarray]:
    state = saved.get("network", saved) if isinstance(saved, dict) else saved
    if not isinstance(state, dict) or not state or not all(isinstance(value, _Tensor) for value in state.values()):
        there = f"; it has the keys {', '.join(map(str, list(saved)[:5]))}" if isinstance(saved, dict) and saved else ""
        raise DataError(f"{path}: expected a state dict, or a dictionary with one under 'network'{there}")
    return {str(name): _array(str(name), tensor, records, order) for name, tensor in state.items()}


def _array(name: str, tensor: _Tensor, records: Mapping[str, bytes], order: str) -> np.ndarray:
    storage = tensor.storage
    dtype = np.dtype(storage.dtype).newbyteorder(">" if order == "big" else "<")
    data = records.get(storage.key, b"")
    numbers = np.frombuffer(data, dtype, len(data) // dtype.itemsize)[storage.start : storage.start + storage.count]
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=False))
    count = math.prod(tensor.size)
    if len(tensor.size) != len(tensor.stride) or count > len(numbers) or (count and last >= len(numbers)):
        raise _Invalid(f"{name} has the shape {tensor.size}, and the file holds {len(numbers)} numbers for it")
    strides: Sequence[int] = [stride * dtype.itemsize for stride in tensor.stride]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides, writeable=False)
    return view.astype(dtype.newbyteorder("="), copy=False)
