"""Writes files as `torch.save` does, from arrays, so that tests need no PyTorch."""

import struct
import zipfile

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


def write_torch_file(path, state, legacy=False, size_of_first=None, offset_of_first=0):
    """Write a state dict as a file of `torch.save`.

    Args:
        state: arrays by name.
        legacy: in the layout before PyTorch 1.6.
        size_of_first: a shape to claim for the first tensor instead of its own.
        offset_of_first: where to claim that its numbers begin in the file's.
    """
    content, keys = b"}(", []
    for key, (name, value) in enumerate(state.items()):
        shape = size_of_first if size_of_first and not keys else value.shape
        content += _text(name) + _tensor(str(key), value, shape, 0 if keys else offset_of_first, legacy)
        keys.append(str(key))
    pickled = _pickle(content + b"u")
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
            for key, value in enumerate(state.values()):
                archive.writestr(f"archive/data/{key}", np.ascontiguousarray(value).tobytes())
        return
    number = MAGIC_NUMBER.to_bytes(10, "little")
    start = [b"\x8a\x0a" + number, _int(1001), b"}(" + _text("little_endian") + b"\x88u"]
    listed = b"](" + b"".join(map(_text, keys)) + b"e"
    storages = b"".join(struct.pack("<q", value.size) + value.tobytes() for value in state.values())
    path.write_bytes(b"".join(map(_pickle, start)) + pickled + _pickle(listed) + storages)


def _pickle(content):
    return b"\x80\x02" + content + b"."


def _text(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _int(number):
    return b"J" + struct.pack("<i", number)


def _sizes(numbers):
    return b"(" + b"".join(map(_int, numbers)) + b"t"


def _tensor(key, value, shape, offset, legacy):
    storage = b"(" + _text("storage") + f"ctorch\n{STORAGES[value.dtype.name]}\n".encode() + _text(key)
    storage += _text("cpu") + _int(value.size) + (b"N" if legacy else b"") + b"tQ"
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    rest = _int(offset) + _sizes(shape) + _sizes(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"
