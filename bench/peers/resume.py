"""A loader killed and resumed again and again, in the environment of that loader: JSON of counts.

    python bench/peers/resume.py LOADER FOLDER < PLANS

PLANS is a JSON list of plans; a plan is one epoch, a list of [world size, steps that a checkpoint
keeps, steps that the kill throws away]. Each loader here is a function (folder, state, world) that
gives the ids of one global step after the other, with the state to save after each. Samples begin
with their id, four bytes.
"""

import copy
import json
import os
import sys
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

GLOBAL_BATCH = 64


def share(world):
    """A rank's batch, for loaders that give every rank as many."""
    return max(1, GLOBAL_BATCH // world)


def number(data):
    """The id of a sample."""
    return int.from_bytes(bytes(data[:4]), "little")


def samples_of(tars):
    """Every sample's bytes, through the plain index."""
    for tar in tars:
        data = Path(tar).read_bytes()
        for line in Path(tar).with_suffix(".idx").read_text().splitlines()[1:]:
            _, offset, size, _ = line.split("\t")
            yield data[int(offset) : int(offset) + int(size)]


def tars_of(folder):
    """The shards."""
    return sorted(str(path) for path in Path(folder).glob("shards/*.tar"))


def ours(folder, state, world):
    """This project, as a training run uses it."""
    from shards.read import Reader, Slice, check_state, open_dataset

    dataset = open_dataset(folder)
    position = check_state(state, dataset, 0, 8) if state else 0
    with ExitStack() as stack:
        ranks = []
        for rank in range(world):
            part = Slice(rank=rank, world_size=world, global_batch=GLOBAL_BATCH)
            reader = Reader(dataset, seed=0, slice=part, block_shards=8, threads=1, prefetch_mib=0)
            batches = reader.batches(position // GLOBAL_BATCH)
            ranks.append(stack.enter_context(closing(batches)))
        step = position // GLOBAL_BATCH
        while step * GLOBAL_BATCH < dataset.samples:
            got = [next(rank) for rank in ranks]
            step += 1
            yield (
                [
                    number(clip.reshape(-1))
                    for batch in got
                    for clip, position in zip(batch.video_bthwc, batch.positions, strict=True)
                    if position < dataset.samples  # the rest is the next epoch's
                ],
                reader.state(step),
            )


def streaming(folder, state, world):
    """mosaicml-streaming: the function that deals its samples, for nodes of at most 8 ranks."""
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.batching import generate_work
    from streaming.base.world import World

    out = f"{folder}-mds"
    if not Path(out, "index.json").exists():
        with MDSWriter(out=out, columns={"clip": "bytes"}, size_limit=1 << 14) as writer:
            for data in samples_of(tars_of(folder)):
                writer.write({"clip": data})
    dataset = _kept.get("streaming") or StreamingDataset(
        local=out, shuffle=True, batch_size=1, num_canonical_nodes=64, allow_unsafe_types=True
    )
    _kept["streaming"] = dataset
    dataset._set_shuffle_block_size(dataset._parallel_rank_world)
    nodes = next(n for n in range(1, world + 1) if world % n == 0 and world // n <= 8)
    state = state or {
        "sample_in_epoch": 0,
        "initial_physical_nodes": nodes,
        "num_canonical_nodes": nodes if 64 % nodes else 64,  # 64 suits the most world sizes
    }
    dataset.num_canonical_nodes = state["num_canonical_nodes"]
    dataset.batch_size = share(world)
    dataset.initial_physical_nodes = state["initial_physical_nodes"]
    machine = World(nodes, world // nodes, 1, 0)
    begin = state["sample_in_epoch"]
    work = generate_work(dataset.batching_method, dataset, machine, 0, begin)
    for step in range(work.shape[3]):
        ids = [int(i) for i in work[:, :, :, step].reshape(-1) if i >= 0]
        taken = begin + (step + 1) * world * share(world)
        yield [number(dataset[i]["clip"]) for i in ids], {**state, "sample_in_epoch": taken}


def litdata(folder, state, world):
    """LitData: a StreamingDataLoader for each rank, resumed from the state of rank 0."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter
    from litdata.utilities.env import _DistributedEnv

    out = f"{folder}-lit"
    if not Path(out, "index.json").exists():
        Path(out).mkdir(exist_ok=True)
        writer = BinaryWriter(out, chunk_size=50)
        for place, data in enumerate(samples_of(tars_of(folder))):
            writer.add_item(place, {"clip": data, "id": number(data)})
        writer.done()
        writer.merge()
    nodes = next(n for n in range(1, world + 1) if world % n == 0 and world // n <= 8)
    loaders = []

    def become(rank):
        # One process plays all the ranks; this is where the library asks which it is.
        env = _DistributedEnv(world, rank, nodes)
        _DistributedEnv.detect = staticmethod(lambda: env)

    def stream(rank, loader):
        become(rank)
        batches = iter(loader)
        while (batch := next(batches, None)) is not None:
            yield batch
            become(rank)

    for rank in range(world):
        become(rank)
        dataset = StreamingDataset(out, shuffle=True, drop_last=False, seed=0)
        loader = StreamingDataLoader(dataset, batch_size=share(world), num_workers=0)
        if state:
            loader.load_state_dict(copy.deepcopy(state))
        loaders.append(loader)
    for got in zip_all([stream(*pair) for pair in enumerate(loaders)]):
        ids = [int(i) for batch in got for i in batch["id"]]
        become(0)
        yield ids, copy.deepcopy(loaders[0].state_dict())


def datasets(folder, state, world):
    """Hugging Face datasets: streamed, shuffled, split by node; every rank saves its own state."""
    from datasets import IterableDataset
    from datasets.distributed import split_dataset_by_node

    if state and len(state) != world:
        raise ValueError("the documentation has no way to give states to other ranks")
    whole = IterableDataset.from_generator(
        lambda tars: ({"clip": data} for data in samples_of(tars)),
        gen_kwargs={"tars": tars_of(folder)},
    ).shuffle(seed=0, buffer_size=100)
    ranks = [split_dataset_by_node(whole, rank, world) for rank in range(world)]
    for rank, saved in zip(ranks, state or [], strict=bool(state)):
        rank.load_state_dict(copy.deepcopy(saved))
    for got in zip_all([batched(stream, share(world)) for stream in ranks]):
        ids = [number(sample["clip"]) for batch in got for sample in batch]
        yield ids, [copy.deepcopy(rank.state_dict()) for rank in ranks]


def batched(stream, size):
    """Lists of `size`, the last one shorter."""
    batch = []
    for item in stream:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def zip_all(iterators):
    """One of each, until all have ended."""
    while got := [item for iterator in iterators for item in [next(iterator, None)] if item]:
        yield got


def live(loader, folder, plan):
    """One epoch with its kills: (times each id was trained on, refused starts, why)."""
    seen, state, refused, reasons = Counter(), None, 0, Counter()
    for world, kept, thrown in plan:
        got = []
        saved = state
        try:
            with closing(loader(folder, state, world)) as steps:
                for ids, after in steps:
                    if len(got) < kept:
                        got.append(ids)
                        saved = after
                    elif not thrown:
                        break
                    else:
                        thrown -= 1
                else:
                    kept = kept if len(got) == kept else -1  # the epoch has ended
        except Exception as error:
            refused += 1
            reasons[f"{type(error).__name__}: {error}"[:160]] += 1
            continue
        seen.update(i for ids in got for i in ids)
        state = saved
        if kept < 0:
            break
    return seen, refused, reasons


_kept = {}


def main():
    name, folder = sys.argv[1:]
    samples = sum(1 for _ in samples_of(tars_of(folder)))
    total = Counter()
    reasons = Counter()
    for plan in json.load(sys.stdin):
        seen, refused, why = live(globals()[name], folder, plan)
        total["epochs"] += 1
        total["starts"] += len(plan)
        total["repeated"] += sum(times - 1 for times in seen.values())
        total["lost"] += len(set(range(samples)) - seen.keys())
        total["refused"] += refused
        reasons += why
    result = {**total, "samples": samples, "reasons": dict(reasons.most_common(3))}
    print(json.dumps(result), flush=True)
    # Some loaders' background processes and threads would keep this one from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
