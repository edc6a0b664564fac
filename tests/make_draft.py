#!/usr/bin/env python3
"""Makes a draft model that disagrees at times: a copy of a GGUF file without some of its layers.

    python3 tests/make_draft.py IN.gguf OUT.gguf --drop 12,13,14

The layers named are left out, the others numbered anew, and the architecture's block_count says so; everything else is
copied as it is. The same input gives the same output, byte for byte. Needs nothing but Python.
"""

import argparse
import re
import struct
import sys

# GGUF value types: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
LAYER = re.compile(rb"blk\.(\d+)\.(.+)", re.DOTALL)


class Reader:
    def __init__(self, file, size):
        self.file, self.size = file, size

    def take(self, count):
        data = self.file.read(count) if count <= self.size else b""
        if len(data) != count:
            sys.exit(f"{self.file.name}: truncated: {count} bytes expected at {self.file.tell()}, the file has {self.size}")
        return data

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def raw_value(self, kind):
        """A metadata value as its bytes."""
        if kind in SCALARS:
            return self.take(struct.calcsize("<" + SCALARS[kind]))
        if kind == STRING:
            length = self.take(8)
            return length + self.take(struct.unpack("<Q", length)[0])
        if kind == ARRAY:
            head = self.take(12)
            element, count = struct.unpack("<IQ", head)
            if element in SCALARS:
                return head + self.take(count * struct.calcsize("<" + SCALARS[element]))
            return head + b"".join(self.raw_value(element) for _ in range(count))
        sys.exit(f"{self.file.name}: metadata type {kind}, expected 0 to 12")


def string(text):
    return struct.pack("<Q", len(text)) + text


def aligned(offset, alignment):
    return (offset + alignment - 1) // alignment * alignment


def copy(source, target, count, name):
    while count:
        piece = source.read(min(count, 1 << 20))
        if not piece:
            sys.exit(f"{source.name}: truncated in tensor {name}: {count} bytes are missing")
        target.write(piece)
        count -= len(piece)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("source", metavar="IN")
    arguments.add_argument("target", metavar="OUT")
    arguments.add_argument("--drop", required=True, metavar="N,N,…", help="layers to leave out, counted from 0")
    options = arguments.parse_args()
    try:
        dropped = {int(number) for number in options.drop.split(",")}
    except ValueError:
        sys.exit(f"--drop is {options.drop}, expected layer numbers with commas between")

    with open(options.source, "rb") as source:
        size = source.seek(0, 2)
        source.seek(0)
        read = Reader(source, size)
        if read.take(4) != b"GGUF":
            sys.exit(f"{options.source}: not a GGUF file")
        version, tensor_count, value_count = read.number("I"), read.number("Q"), read.number("Q")
        if version not in (2, 3):
            sys.exit(f"{options.source}: GGUF version {version}, expected 2 or 3")

        values = {}
        for _ in range(value_count):
            key, kind = read.string(), read.number("I")
            values[key] = (kind, read.raw_value(kind))
        tensors = []
        for _ in range(tensor_count):
            name = read.string()
            dimensions = [read.number("Q") for _ in range(read.number("I"))]
            tensors.append((name, dimensions, read.number("I"), read.number("Q")))
        alignment = struct.unpack("<I", values.get(b"general.alignment", (4, struct.pack("<I", 32)))[1])[0]
        data_start = aligned(source.tell(), alignment)

        architecture = values[b"general.architecture"][1][8:]
        count_key = architecture + b".block_count"
        kind, raw = values[count_key]
        layers = struct.unpack("<" + SCALARS[kind], raw)[0]
        if not dropped <= set(range(layers)) or len(dropped) == layers:
            sys.exit(f"--drop is {options.drop}, expected some, not all, of the layers 0 to {layers - 1}")
        kept = [layer for layer in range(layers) if layer not in dropped]
        values[count_key] = (kind, struct.pack("<" + SCALARS[kind], len(kept)))
        # Some architectures give an array with one entry a layer; those entries go as well.
        for key, (kind, raw) in values.items():
            if key.startswith(architecture + b".") and kind == ARRAY:
                element, count = struct.unpack("<IQ", raw[:12])
                if count == layers and element in SCALARS:
                    width = struct.calcsize("<" + SCALARS[element])
                    entries = b"".join(raw[12 + layer * width :][:width] for layer in kept)
                    values[key] = (kind, struct.pack("<IQ", element, len(kept)) + entries)

        # A tensor reaches to the next one in the file; what lies between is padding.
        starts = sorted({offset for _, _, _, offset in tensors} | {size - data_start})
        ends = dict(zip(starts, starts[1:]))
        new_number = {old: new for new, old in enumerate(kept)}
        plan, offset = [], 0
        for name, dimensions, kind, start in tensors:
            layer = LAYER.fullmatch(name)
            if layer:
                if int(layer[1]) in dropped:
                    continue
                name = b"blk.%d.%s" % (new_number[int(layer[1])], layer[2])
            plan.append((name, dimensions, kind, offset, start, ends[start] - start))
            offset = aligned(offset + ends[start] - start, alignment)

        with open(options.target, "wb") as target:
            target.write(b"GGUF" + struct.pack("<IQQ", version, len(plan), len(values)))
            for key, (kind, raw) in values.items():
                target.write(string(key) + struct.pack("<I", kind) + raw)
            for name, dimensions, kind, offset, _, _ in plan:
                target.write(string(name) + struct.pack("<I", len(dimensions)))
                target.write(struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset))
            data_start_out = aligned(target.tell(), alignment)
            for name, _, _, offset, start, length in plan:
                target.write(bytes(data_start_out + offset - target.tell()))
                source.seek(data_start + start)
                copy(source, target, length, name.decode(errors="replace"))
            target.write(bytes(aligned(target.tell(), alignment) - target.tell()))
    print(f"{options.target}: {len(kept)} of {layers} layers, {len(plan)} tensors")


if __name__ == "__main__":
    main()
