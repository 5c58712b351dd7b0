"""What Weights & Biases wrote of a run that is offline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def records(folder: Path) -> Iterator[Any]:
    """The records in the transaction log of a run: blocks of 32 KiB in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, payload = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the rest of a block is padding
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + 7 + length > len(data):  # is being written
            return
        payload += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(payload)
            yield record
            payload = b""


def written_records(folder: Path) -> list[Any]:
    """The records of a run that has ended, once all are there: the service of W&B writes for a while after the end."""
    import wandb

    wandb.finish()
    deadline = time.monotonic() + 60
    while True:
        everything = list(records(folder))
        if everything and everything[-1].HasField("exit"):  # the last record of all
            return everything
        assert time.monotonic() < deadline, [record.WhichOneof("record_type") for record in everything]
        time.sleep(0.5)
