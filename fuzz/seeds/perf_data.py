#!/usr/bin/env python3
"""Writes the seed of read_perf_data: a small file as `perf record -g -e cpu-clock -F 999` writes it, made up."""
import pathlib
import struct

IP, TID, TIME, CALLCHAIN, PERIOD = 1, 2, 4, 32, 256
ATTRIBUTE = struct.pack(
    "<IIQQQQQ", 1, 128, 0, 999, IP | TID | TIME | CALLCHAIN | PERIOD, 0, 1 << 10 | 1 << 18
).ljust(128, b"\0")
USER = 0xFFFFFFFFFFFFFE00  # what follows in a call chain is user mode


def record(kind, body, misc=2):
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


def text(words):
    words += b"\0"
    return words.ljust(-(-len(words) // 8) * 8, b"\0")


ids = struct.pack("<IIQ", 7, 7, 1_000)  # pid, tid and time, behind each record
chain = [USER, 0x1010, 0x1100]
sample = struct.pack("<QIIQQQ", 0x1010, 7, 7, 2_000, 1_001_001, len(chain)) + struct.pack("<3Q", *chain)
mapping = struct.pack("<IIQQQIIQQII", 7, 7, 0x1000, 0x1000, 0, 0, 0, 0, 0, 5, 2) + text(b"/nothing/there")
records = record(3, struct.pack("<II", 7, 7) + text(b"seed") + ids) + record(10, mapping + ids) + record(9, sample)

HEAD = 104
at = HEAD + len(ATTRIBUTE) + 16
head = b"PERFILE2" + struct.pack(
    "<11Q", HEAD, 144, HEAD, 144, at, len(records), 0, 0, 0, 0, 0
) + struct.pack("<Q", 0)
file = head + ATTRIBUTE + struct.pack("<QQ", 0, 0) + records
(pathlib.Path(__file__).parent / "read_perf_data" / "small").write_bytes(file)
