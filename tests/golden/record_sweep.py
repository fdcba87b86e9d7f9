#!/usr/bin/env python3
"""Records what Optuna's TPESampler makes of a history of trials, for tests/unit/launcher/sweep_methods_test.cpp.

    record_sweep.py [OUTPUT.json]      default: tests/data/golden/sweep.json (seconds)

Points are in Optuna's internal representation: the number itself, or the index of a choice.
"""
import json
import pathlib
import random
import sys

import numpy
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe import parzen_estimator
from optuna.samplers._tpe.sampler import _split_trials, default_gamma

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "sweep.json"
optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACES = {
    "rate": {"rate": FloatDistribution(1e-6, 1e-2, log=True)},
    "line": {"x": FloatDistribution(-3.0, 5.0)},
    "whole": {"size": IntDistribution(1, 40), "steps": IntDistribution(0, 1000, step=50)},
    "powers": {"size": IntDistribution(1, 1024, log=True)},
    "choice": {"optim": CategoricalDistribution(["a", "b", "c"])},
    "stepped": {"p": FloatDistribution(0.0, 0.5, step=0.1)},
    "all": {"rate": FloatDistribution(1e-6, 1e-2, log=True), "decay": FloatDistribution(0.0, 0.3), "batch": IntDistribution(4, 64, step=4),
            "optim": CategoricalDistribution(["a", "b", "c", "d"]), "width": IntDistribution(8, 512, log=True)},
}
# (space, trials, maximise).
CASES = [("rate", 10, False), ("rate", 27, True), ("rate", 70, False), ("rate", 400, True), ("line", 11, True), ("line", 26, False),
         ("whole", 12, False), ("powers", 14, True), ("choice", 10, False), ("choice", 45, True), ("stepped", 13, False),
         ("all", 10, True), ("all", 16, False)]


class StableNumpy:
    """numpy orders equal numbers as the machine's vector instructions like it; here the earlier trial comes first."""

    def __getattr__(self, name):
        return getattr(numpy, name)

    @staticmethod
    def argsort(values):
        return numpy.argsort(values, kind="stable")


parzen_estimator.np = StableNumpy()


def described(distribution):
    if isinstance(distribution, CategoricalDistribution):
        return {"choices": list(distribution.choices)}
    return {"low": distribution.low, "high": distribution.high, "step": distribution.step or 0, "log": distribution.log,
            "whole": isinstance(distribution, IntDistribution)}


def rows(samples):
    return numpy.array(list(samples.values()), dtype=float).T.tolist()


def case(name, count, maximise):
    space = SPACES[name]
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=count))
    values = random.Random(count)
    for number in range(count):
        params = draws.ask(space).params
        # Every fourth value is one that was there before: the earlier trial is the better one.
        value = round(values.uniform(0, 1), 6) if number % 4 != 3 else study.trials[number // 2].value
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
    sampler = optuna.samplers.TPESampler(seed=7)
    below, above = _split_trials(study, study.trials, default_gamma(count))
    good = sampler._build_parzen_estimator(study, space, below, handle_below=True)
    other = sampler._build_parzen_estimator(study, space, above, handle_below=False)
    candidates = good.sample(numpy.random.RandomState(count), 24)
    gains = sampler._compute_acquisition_func(candidates, good, other)
    return {"space": [{"name": key} | described(value) for key, value in space.items()], "maximize": maximise,
            "trials": rows(sampler._get_internal_repr(study.trials, space, study)), "values": [trial.value for trial in study.trials],
            "good": rows(sampler._get_internal_repr(below, space, study)), "other": rows(sampler._get_internal_repr(above, space, study)),
            "weights": other._mixture_distribution.weights.tolist(),
            "deviations": [distribution.sigma.tolist() if hasattr(distribution, "sigma") else None
                           for distribution in other._mixture_distribution.distributions],
            "candidates": rows(candidates), "log_good": good.log_pdf(candidates).tolist(),
            "log_other": other.log_pdf(candidates).tolist(), "best": int(numpy.argmax(gains))}


def main():
    recorded = {"optuna": optuna.__version__, "cases": [case(*each) for each in CASES]}
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    output.write_text("{" + json.dumps("optuna") + ": " + json.dumps(recorded["optuna"]) + ", \"cases\": [\n"
                      + ",\n".join(json.dumps(each, separators=(",", ":")) for each in recorded["cases"]) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
