"""Bare Ray Tune over bare Ray Train, written as their documentation writes it, for bench/sweep.py.

    python bench/peers/ray_tune.py FOLDER --trials 8 --steps N --every K --workers 2 [--asha]

Each trial is `ray_train.train_func` under a TorchTrainer whose reports go to Tune by its callback.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray_train import train_func


def trial(config: dict[str, Any]) -> None:
    """One trial: a training run of its own."""
    folder = Path(config["folder"]) / f"trial-{config['number']}"
    folder.mkdir(exist_ok=True)
    trainer = TorchTrainer(
        train_func,
        train_loop_config={**config, "folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=config["workers"]),
        run_config=RunConfig(
            name=f"train-{config['number']}",
            storage_path=str(folder),
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def main() -> None:
    """Runs the trials."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for name in ("trials", "steps", "every", "batch", "width", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--asha", action="store_true")
    given = parser.parse_args()
    folder = str(Path(given.folder).absolute())
    reports = given.steps // given.every
    asha = tune.schedulers.ASHAScheduler(
        metric="loss", mode="min", max_t=reports, grace_period=2, reduction_factor=2
    )
    fixed = {k: v for k, v in vars(given).items() if k not in ("trials", "asha")}
    tuner = tune.Tuner(
        trial,
        param_space={
            **fixed,
            "folder": folder,
            "number": tune.grid_search(list(range(given.trials))),
        },
        tune_config=tune.TuneConfig(
            max_concurrent_trials=1, scheduler=asha if given.asha else None
        ),
        run_config=tune.RunConfig(name="tune", storage_path=folder),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
