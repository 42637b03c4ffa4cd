import dataclasses

import pytest

from orchestrator.config import flat, identity, run_name
from orchestrator.experiments import EXPERIMENTS, SCALES, resolve
from orchestrator.overrides import override

GOLF = EXPERIMENTS["vgan_golf"]


def test_override_paths_change_only_what_they_name():
    changed = override(GOLF, ["optim.lr=1e-4", "model.width=16", "data.block_shards=none"])
    difference = {k for k, v in flat(GOLF).items() if flat(changed)[k] != v}
    assert difference == {"optim.lr", "model.width", "data.block_shards"}
    assert changed.optim.lr == 1e-4
    assert changed.data.block_shards is None


def test_override_fields_valid_only_together_apply_in_any_order():
    pair = ["resources.num_workers=128", "data.global_batch=256"]
    assert override(GOLF, pair) == override(GOLF, pair[::-1])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lrr=1", r"optim\.lrr: no field 'lrr'; did you mean 'lr'\?"),
        ("optim.lr=fast", r"optim\.lr='fast': must be a number"),
        ("optim.lr=-1", r"optim\.lr=-1.0: must be greater than 0"),
        ("budget.steps=1.5", r"budget\.steps='1.5': must be a whole number"),
        ("resources.use_gpu=yes", r"resources\.use_gpu='yes': must be true or false"),
        ("resources.num_workers=8..2", r"num_workers='8..2'"),
        ("resources.num_workers=65", r"at most data.global_batch \(64\)"),
        ("optim=3", r"optim: name one of its fields: beta1"),
        ("seed.x=3", r"seed\.x: 'seed' has no fields below it"),
        ("name=other", r"name: no field 'name'"),
        ("optim.lr", r"an override is path=value"),
        ("data.name=../x", r"data\.name='../x': must be a folder name"),
    ],
)
def test_override_wrong_names_the_path_and_what_is_valid(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(GOLF, [assignment])


def test_resolve_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'vgan_golf'"):
        resolve("vgan_gulf", None, [])
    with pytest.raises(ValueError, match="did you mean 'laptop'"):
        resolve("vgan_golf", "labtop", [])


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", [None, *SCALES])
def test_resolve_user_overrides_stand_above_the_scale(name, scale):
    experiment = resolve(name, scale, ["budget.steps=7", "data.name=mine"])
    assert (experiment.budget.steps, experiment.data.name) == (7, "mine")


def test_run_name_changes_with_what_decides_the_result_and_with_nothing_else():
    base = run_name(GOLF, "v1")
    assert base.startswith("vgan_golf-")
    same = ["resources.num_workers=2..4", "budget.checkpoint_every=3", "data.ledger=true"]
    assert run_name(override(GOLF, same), "v1") == base
    others = ["compute.precision=fp32", "compute.accumulate=2"]
    others += ["optim.lr=1e-4", "model.width=32", "seed=1", "budget.steps=9", "data.name=x"]
    names = {run_name(override(GOLF, [other]), "v1") for other in others}
    assert len(names | {base, run_name(GOLF, "v2")}) == len(others) + 2


def test_identity_covers_every_field_that_is_not_marked_free():
    free = {k for k in flat(GOLF) if k not in flat(identity(GOLF))}
    assert free == {
        "paper",
        "data.ledger",
        "data.cache_gib",
        "data.cache_pixels",
        "data.prefetch_mib",
        "data.reader_threads",
        "budget.checkpoint_every",
        "budget.samples_every",
        "budget.log_every",
        "budget.samples",
        "budget.keep_checkpoints",
        "budget.best_metric",
        "budget.best_is",
        "compute.compile",
        "compute.channels_last",
        "resources.num_workers",
        "resources.use_gpu",
        "resources.cpus_per_worker",
        "resources.threads",
        "resources.max_failures",
        "resources.max_rollbacks",
        "resources.explosion",
        "resources.hang_timeout_s",
    }


def test_experiments_are_named_as_registered_and_frozen():
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            experiment.seed = 1
