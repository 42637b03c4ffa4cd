"""The Markdown that MLflow's registry shows with a model and each of its versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config import Experiment, flat, identity, plain
from orchestrator.experiments import assignments

_SHOWN = 8  # names of classes, words and attributes in a card


def of_model(experiment: Experiment) -> str:
    """Of a registered model: what it is, and how to use it."""
    name = experiment.name
    return f"""\
Models that `{name}` trained: **{experiment.paper or name}**. A version is a run's; the alias \
`best` is the winner of the newest sweep.

    python -m orchestrator.generate models:/{name}@best

    import mlflow.pyfunc
    model = mlflow.pyfunc.load_model("models:/{name}@best")  # needs torch and numpy alone
    model.predict(model.input_example)
"""


def of_version(
    experiment: Experiment,
    run_id: str,
    run: str,
    metrics: Mapping[str, float],
    names: Mapping[str, Sequence[str]],
) -> str:
    """Of one version: a picture, what it was trained on and how, and what it came to.

    The picture is the run's last samples, moving, where MLflow's server gives them to a browser.
    """
    deciding = flat(identity(experiment))
    changed = [
        f"`{each}`" for each in assignments(plain(experiment)) if each.partition("=")[0] in deciding
    ]
    steps, data = experiment.budget.steps, experiment.data
    samples = f"samples%2Fstep-{steps:08d}.gif"
    told = [
        f"- `{name}` {value:.5g}"
        for name, value in sorted(metrics.items())
        if name.startswith(("train/", "val/"))
    ]
    told += [
        f"- {kind}: {', '.join(values[:_SHOWN])}{' ...' if len(values) > _SHOWN else ''}"
        for kind, values in names.items()
        if values
    ]
    return f"""\
![clips of this model](get-artifact?path={samples}&run_uuid={run_id})

Run `{run}`: {steps} steps of {data.global_batch} clips of `{data.name}`, seed {experiment.seed}. \
Changed from the registered experiment: {" ".join(changed) or "nothing"}.

At its last step:

{chr(10).join(told)}
"""
