"""Goodput against three others: Young's and Daly's results, a random run, and plain sums."""

import json
import math
from statistics import fmean

import pytest

from orchestrator.goodput import (
    HOUR_S,
    Faults,
    best_cadence,
    goodput,
    main,
    offers,
    replay,
    simulate,
)
from orchestrator.hardware import find_machine

DAY_S = 24 * HOUR_S


def test_best_cadence_failures_only_is_youngs_where_a_checkpoint_is_cheap():
    for mtbf_s in (HOUR_S, DAY_S):
        faults = Faults(node_mtbf_s=mtbf_s, checkpoint_s=0.1, restart_s=30.0)
        assert best_cadence(faults, 1) == pytest.approx(math.sqrt(2 * 0.1 * mtbf_s), rel=0.01)


def test_best_cadence_failures_only_is_dalys_higher_order_where_it_is_dear():
    cost, mtbf = 60.0, HOUR_S
    faults = Faults(node_mtbf_s=mtbf, checkpoint_s=cost, restart_s=30.0)
    x = cost / (2 * mtbf)  # Daly 2006, eq. 37
    daly = math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(x) / 3 + x / 9) - cost
    assert best_cadence(faults, 1) == pytest.approx(daly, rel=0.005)


def test_goodput_failures_only_is_dalys_complete_model():
    faults = Faults(node_mtbf_s=7200.0, checkpoint_s=20.0, restart_s=90.0)
    rate = 2 / 7200
    wall = math.exp(rate * 90) * math.expm1(rate * 320) / rate
    assert goodput(faults, 2, 300.0) == pytest.approx(300 / wall)


def test_goodput_without_interruptions_is_the_share_not_blocked():
    faults = Faults(node_mtbf_s=math.inf, checkpoint_s=5.0, restart_s=60.0)
    assert goodput(faults, 1000, 95.0) == pytest.approx(0.95)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(node_mtbf_s=HOUR_S, checkpoint_s=10.0, restart_s=60.0),
        Faults(
            node_mtbf_s=3 * HOUR_S,
            node_preemption_s=HOUR_S,
            notice_s=120.0,
            notice_checkpoint_s=20.0,
            checkpoint_s=10.0,
            write_s=15.0,
            restart_s=200.0,
        ),
        Faults(
            node_mtbf_s=math.inf,
            node_preemption_s=HOUR_S,
            notice_s=10.0,  # too short, so it loses work
            notice_checkpoint_s=20.0,
            checkpoint_s=10.0,
            restart_s=100.0,
        ),
    ],
    ids=["failures", "both", "short-notice"],
)
def test_goodput_agrees_with_a_random_run(faults):
    played = fmean(simulate(faults, 2, 240.0, useful_s=60 * DAY_S, seed=seed) for seed in range(4))
    assert goodput(faults, 2, 240.0) == pytest.approx(played, rel=0.01)


def test_replay_by_hand():
    faults = Faults(
        node_mtbf_s=1.0,
        notice_checkpoint_s=2.0,
        checkpoint_s=1.0,
        write_s=3.0,
        restart_s=10.0,
    )

    def wall(*hits):
        return replay(faults, hits, every_s=20.0, useful_s=50.0)

    assert wall() == 53  # three checkpoints: at 20, at 40, at the end
    assert wall((30.0, False)) == 53 + 9 + 10  # 9 s since the checkpoint at 21 are lost
    assert wall((22.0, False)) == 53 + 22 - 0 + 10  # it was not durable before 24
    assert wall((30.0, True)) == 53 + 2 + 10
    assert wall((30.0, True), (31.0, False)) == 53 + 2 + 10  # the node was going anyway
    assert wall((30.0, False), (35.0, False)) == 53 + 9 + 5 + 10
    assert wall((500.0, False)) == 53


def test_best_cadence_beats_its_neighbours_in_a_random_run():
    faults = Faults(node_mtbf_s=2 * HOUR_S, checkpoint_s=15.0, restart_s=60.0)
    best = best_cadence(faults, 4)
    at = {
        factor: simulate(faults, 4, factor * best, useful_s=200 * DAY_S, seed=1)
        for factor in (0.3, 1.0, 3.0)
    }
    assert at[1.0] == max(at.values())


def test_goodput_hopeless_is_zero_and_the_offer_has_no_finite_price():
    faults = Faults(node_mtbf_s=1.0, checkpoint_s=1.0, restart_s=3600.0)
    assert goodput(faults, 8, 10.0) == 0.0
    assert offers(find_machine("8xh100"), faults, gpus=(8,))[0].usd_per_useful_gpu_hour == math.inf


def test_offers_spot_costs_its_price_over_its_goodput():
    machine = find_machine("8xh100")
    faults = Faults(
        node_mtbf_s=1000 * HOUR_S, node_preemption_s=DAY_S, checkpoint_s=1.0, restart_s=60.0
    )
    demand, spot = offers(machine, faults, gpus=(1024,))
    assert (demand.gpus, demand.spot, spot.spot) == (1024, False, True)
    assert spot.interruptions_per_day == pytest.approx(128 + 128 * 24 / 1000)
    assert demand.interruptions_per_day == pytest.approx(128 * 24 / 1000)
    assert spot.usd_per_useful_gpu_hour * spot.goodput * 1024 == pytest.approx(spot.usd_per_hour)
    assert spot.goodput < demand.goodput < 1


def test_command_prints_a_row_for_each_number_of_gpus_and_kind(capsys):
    assert main(["--on", "8xa100", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["gpus"] for row in rows[::2]] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert main(["--on", "8xa100"]) == 0
    assert "a spot node is taken every 24 h" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "8xh10"], "did you mean '8xh100'"),
        (["--checkpoint-s", "0"], "checkpoint_s=0.0: must be greater than 0"),
        (["--restart-s", "-1"], "restart_s=-1.0: must be"),
        (["--on", "laptop"], "has no price"),
    ],
)
def test_command_wrong_call_exits_2(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
