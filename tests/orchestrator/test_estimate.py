"""The plan's figures against sums by hand, as a user asks for them."""

import json

import pytest

from orchestrator.cost import StepCost
from orchestrator.estimate import on
from orchestrator.hardware import find_machine
from orchestrator.outbox import Outbox
from orchestrator.run import main

SMALL = ["data.name=squares", "data.global_batch=4", "model.width=2", "resources.use_gpu=false"]


def plan(capsys, *arguments):
    assert main(["vgan_golf", *SMALL, *arguments, "--plan", "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_plan_figures_are_those_of_the_run(site, capsys):
    figures = plan(capsys, "budget.steps=100")
    stored = sum(path.stat().st_size for path in (site / "shards/squares/shards").glob("*.tar"))
    assert figures["read_gib"]["epoch"] * 2**30 == pytest.approx(stored)
    assert figures["read_gib"]["run"] == pytest.approx(figures["read_gib"]["epoch"] * 10)
    assert figures["pflop"] == pytest.approx(figures["gflop_per_clip"]["step"] * 400 / 1e6)
    weights = 4 * sum(figures["parameters"].values())
    assert figures["memory_gib_per_worker"]["adam"] * 2**30 == pytest.approx(2 * weights)
    assert figures["checkpoint_mib"] * 2**20 == pytest.approx(3 * weights, rel=0.02)  # and buffers
    assert figures["measured"] is None


def test_plan_on_a_machine_is_time_and_cost_there(site, capsys):
    there = plan(capsys, "--on", "8xa100")["on_8xa100"]
    flops = plan(capsys)["gflop_per_clip"]["step"] * 1e9
    rate = 8 * 312e12 * 0.3 / flops
    assert there["bf16"]["clips_per_s"] == pytest.approx(rate)
    assert there["bf16"]["hours"] == pytest.approx(65_000 * 4 / rate / 3600)
    assert there["bf16"]["spot_usd"] == pytest.approx(there["bf16"]["hours"] * 8.3527)
    assert "MFU 0.3" in there["assumes"]
    assert there["memory_gib"].endswith("of 40")


def test_on_more_than_the_memory_holds_says_so():
    gib = 2**30
    cost = StepCost(
        flops_per_clip={"only": 1},
        weights=gib,
        gradients=gib,
        adam=2 * gib,
        activations_per_clip=gib,
        activations_fixed=0,
        checkpoint_bytes=3 * gib,
    )
    machine = find_machine("1xl4")  # 22.4 GiB
    assert on(machine, cost, batch=18, steps=1)["memory_gib"] == "22.00 of 22.4"
    assert "DOES NOT FIT" in on(machine, cost, batch=19, steps=1)["memory_gib"]


def test_plan_shows_what_a_run_of_the_same_model_and_batch_reached(site, capsys):
    def told(run, width, rates):
        folder = site / "runs" / run / "outbox"
        params = {"model.two_stream": "True", "model.width": width, "model.latent": "100"}
        params |= {"model.mask_lambda": "0.1", "data.global_batch": "4", "budget.steps": "9"}
        driver, rank0 = Outbox(folder, "driver"), Outbox(folder, "rank0")
        driver.append({"kind": "params", "values": params})
        driver.append({"kind": "tags", "values": {"orchestrator.host": "here"}})
        for step, rate in enumerate(rates):
            values = {"sys/clips_per_s": rate}
            rank0.append({"kind": "metrics", "step": step, "ms": step, "values": values})

    told("same", "2", [1.0, 1.0, 20.0, 20.0])  # the first ones warm up
    told("other", "4", [99.0])
    shown = plan(capsys, "budget.steps=100")
    assert (shown["measured"]["clips_per_s"], shown["measured"]["host"]) == (20.0, "here")
    assert shown["measured"]["hours"] == pytest.approx(400 / 20 / 3600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--plan", "--on", "8xh10"], "did you mean '8xh100'"), (["--on", "8xh100"], "--plan")],
)
def test_plan_wrong_machine_exits_2(site, capsys, arguments, message):
    assert main(["vgan_golf", *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err
