"""One loader over the bench's clips, in the environment of that loader: prints figures as JSON.

    python bench/peers/read.py LOADER FOLDER jpg|u8 SECONDS

Needs numpy, simplejpeg and the loader, not this project. Every loader does the same work in one
process: an epoch in shuffled order, again and again, decoded by the same decoder, stacked by 16.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import simplejpeg

SHAPE = (32, 64, 64, 3)
BATCH = 16


def decode(data, encoding):
    """bytes to uint8 (T, H, W, C)."""
    if encoding == "u8":
        return np.frombuffer(data, dtype=np.uint8).reshape(SHAPE)
    return simplejpeg.decode_jpeg(data).reshape(SHAPE)


def samples_of(folder):
    """Every sample's bytes, through the plain index: what the peers' formats are made from."""
    for tar in sorted(Path(folder).glob("shards/*.tar")):
        data = tar.read_bytes()
        for line in tar.with_suffix(".idx").read_text().splitlines()[1:]:
            name, offset, size, _ = line.split("\t")
            if not name.endswith(".json"):
                yield name, data[int(offset) : int(offset) + int(size)]


def bare(folder, _):
    """No loader: the decoder alone, on bytes in memory."""
    held = [data for _, data in samples_of(folder)]
    while True:
        yield from held


def webdataset(folder, encoding):
    """Shuffled shards and a buffer of 1,000, as its documentation has it."""
    import webdataset as wds

    urls = sorted(str(path) for path in Path(folder).glob("shards/*.tar"))
    epoch = 0
    while True:
        data = wds.WebDataset(urls, shardshuffle=len(urls), seed=epoch).shuffle(1000)
        for sample in data:
            yield sample[encoding]
        epoch += 1


def streaming(folder, _):
    """mosaicml-streaming: its own shards, local, py1e shuffle."""
    from streaming import MDSWriter, StreamingDataset

    out = f"{folder}-mds"
    if not Path(out, "index.json").exists():
        with MDSWriter(out=out, columns={"clip": "bytes"}) as writer:
            for _, data in samples_of(folder):
                writer.write({"clip": data})
    dataset = StreamingDataset(local=out, shuffle=True, batch_size=BATCH, allow_unsafe_types=True)
    while True:
        for sample in dataset:
            yield sample["clip"]


def litdata(folder, _):
    """LitData: its own chunks, local, shuffled."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    out = f"{folder}-lit"
    if not Path(out, "index.json").exists():
        Path(out).mkdir(exist_ok=True)
        writer = BinaryWriter(out, chunk_bytes="64MB")
        for number, (_, data) in enumerate(samples_of(folder)):
            writer.add_item(number, {"clip": data})
        writer.done()
        writer.merge()
    dataset = StreamingDataset(out, shuffle=True)
    while True:
        for sample in dataset:
            yield sample["clip"]


def ray(folder, encoding):
    """Ray Data: read_webdataset without its decoder. Its workers' CPU time is not counted."""
    import ray as ray_library

    ray_library.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    files = sorted(str(path) for path in Path(folder).glob("shards/*.tar"))
    data = ray_library.data.read_webdataset(files, decoder=False, shuffle="files")
    while True:
        for block in data.iter_batches(batch_size=BATCH, local_shuffle_buffer_size=200):
            yield from block[encoding]


def main():
    loader, folder, encoding, seconds = sys.argv[1:]
    stream = globals()[loader](folder, encoding)
    begin = time.perf_counter()
    batch = [decode(next(stream), encoding)]
    first = time.perf_counter() - begin
    clips = 0
    batch = []
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < float(seconds):
        batch.append(decode(next(stream), encoding))
        if len(batch) == BATCH:
            clips += len(np.stack(batch))
            batch = []
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        json.dumps(
            {"clips_per_s": clips / wall, "cpu_ms_per_clip": cpu / clips * 1e3, "first_s": first}
        ),
        flush=True,
    )
    sys.stdout.flush()
    # Some loaders' background processes and threads would keep this one from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
