"""One loader over the bench's clips, in the environment of that loader: prints figures as JSON.

    python bench/peers/read.py LOADER FOLDER jpg|u8 SECONDS

A peer needs numpy, simplejpeg and itself, not this project. Every loader does the same work in one
process: an epoch in shuffled order, again and again, decoded by the same decoder, stacked by 16.
The first epoch after the first batch is "cold": what calls this has dropped the files from the
page cache. What follows, for SECONDS, is "warm".
"""

import json
import mmap
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


def stacked(samples, encoding):
    """Batches of a loader of single samples."""
    while True:
        yield np.stack([decode(next(samples), encoding) for _ in range(BATCH)])


def samples_of(folder):
    """Every sample's bytes, through the plain index: what the peers' formats are made from."""
    for tar in sorted(Path(folder).glob("shards/*.tar")):
        data = tar.read_bytes()
        for line in tar.with_suffix(".idx").read_text().splitlines()[1:]:
            name, offset, size, _ = line.split("\t")
            if not name.endswith(".json"):
                yield name, data[int(offset) : int(offset) + int(size)]


def bare(folder, encoding):
    """No loader: the decoder alone, or a plain copy, from memory into the same batch again."""
    held = [data for _, data in samples_of(folder)]
    batch = np.zeros((BATCH, *SHAPE), dtype=np.uint8)
    strips = batch.reshape(BATCH, -1, *SHAPE[2:])
    while True:
        for n, data in enumerate(held):
            if encoding == "u8":
                batch[n % BATCH] = decode(data, encoding)
            else:
                simplejpeg.decode_jpeg(data, buffer=strips[n % BATCH])
            if n % BATCH == BATCH - 1:
                yield batch


def random_reads(folder, read):
    """No loader: `read(file, offset, out)` of every raw clip in random order, as we store them."""
    found = []
    for tar in sorted(Path(folder).glob("shards/*.tar")):
        file = os.open(tar, os.O_RDONLY)
        lines = tar.with_suffix(".idx").read_text().splitlines()[1:]
        found += [(file, int(line.split("\t")[1])) for line in lines]
    batch = np.zeros((BATCH, int(np.prod(SHAPE))), dtype=np.uint8)
    rng = np.random.default_rng(0)
    while True:
        for n, place in enumerate(rng.permutation(len(found)).tolist()):
            read(*found[place], batch[n % BATCH])
            if n % BATCH == BATCH - 1:
                yield batch


def pread(folder, _):
    """Only the reads."""
    return random_reads(folder, lambda file, offset, out: os.preadv(file, [out.data], offset))


def checked(folder, _):
    """The reads, and the checksum of what was read."""
    import google_crc32c

    def read(file, offset, out):
        os.preadv(file, [out.data], offset)
        google_crc32c.value(out)

    return random_reads(folder, read)


def mapped(folder, _):
    """Copies from mapped files instead of reads."""
    maps = {}

    def read(file, offset, out):
        if file not in maps:
            maps[file] = np.frombuffer(mmap.mmap(file, 0, prot=mmap.PROT_READ), dtype=np.uint8)
        np.copyto(out, maps[file][offset : offset + out.nbytes])

    return random_reads(folder, read)


def ours(folder, _, **options):
    """This project, as a training run uses it, with one thread."""
    from shards.read import Reader, Slice, open_dataset

    part = Slice(rank=0, world_size=1, global_batch=BATCH)
    reader = Reader(open_dataset(folder), seed=0, slice=part, **{"threads": 1, **options})
    for batch in reader.batches(0):
        assert batch.valid_b.all()
        yield batch.video_bthwc


def kept(folder, _):
    """The same where the pixels of every shard are in the cache already."""
    from shards.read import Cache

    cache = Cache(root=f"{folder}-pixels", limit_gib=8, decode=True)
    shards = len(list(Path(folder).glob("shards/*.tar")))
    filling = ours(folder, _, cache=cache)
    while len(list(Path(cache.root).glob("*.u8"))) < shards:
        next(filling)
    filling.close()
    return ours(folder, _, cache=cache)


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
    import ray.data

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    files = sorted(str(path) for path in Path(folder).glob("shards/*.tar"))
    data = ray.data.read_webdataset(files, decoder=None, shuffle="files")
    while True:
        for block in data.iter_batches(batch_size=BATCH, local_shuffle_buffer_size=200):
            yield from block[encoding]


def timed(stream, *, clips=float("inf"), seconds=float("inf")):
    """Reads at least so many clips, or for so long."""
    read = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while read < clips and time.perf_counter() - wall < seconds:
        read += len(next(stream))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"clips_per_s": read / wall, "cpu_ms_per_clip": cpu / read * 1e3}


def main():
    loader, folder, encoding, seconds = sys.argv[1:]
    manifest = json.loads(Path(folder, "manifest.json").read_text())
    epoch = sum(shard["samples"] for shard in manifest["shards"])
    begin = time.perf_counter()
    stream = globals()[loader](folder, encoding)
    if loader in ("webdataset", "streaming", "litdata", "ray"):
        stream = stacked(stream, encoding)
    next(stream)
    first = time.perf_counter() - begin
    figures = {"first_s": first, "cold": timed(stream, clips=epoch - BATCH)}
    figures["warm"] = timed(stream, seconds=float(seconds))
    print(json.dumps(figures), flush=True)
    # Some loaders' background processes and threads would keep this one from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
