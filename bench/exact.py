"""What exactness costs: the time of a step of MiniLM with training.reproducible, and of one comparison of weights and optimizer.

`./dev bench exact [--ranks 2] [--steps 40]` runs the same training in each way by turns, so that the load of the machine hits all
alike, and prints the lower quartile of the seconds of a step and the processor time of a run, which other programs disturb less.
"""
import argparse
import os
import pathlib
import resource
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["DTRAIN_BUILD_DIR"] = options.build
    import harness

    def seconds_of_steps(folder, **changes):
        training = {"max_steps": options.steps, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "logging_steps": 1}
        reliability = {"check_interval": changes.pop("check_interval", 0)}
        recipe = harness.recipe(folder, harness.MINILM, tokenizer={"max_length": 128}, training=training | changes,
                                data={"train_samples": 512, "eval": None, "eval_samples": None}, metrics={"compute": []},
                                reliability=reliability)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome = harness.run(recipe, ranks=options.ranks, OMP_NUM_THREADS="1")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert outcome.code == 0, outcome.text
        records = [record for record in harness.log_records(folder / "out") if "loss" in record]
        return [sum(record["seconds"].values()) for record in records[2:]], after.ru_utime - before.ru_utime

    ways = {"as usual": {}, "reproducible": {"reproducible": True}, "check after every step": {"check_interval": 1}}
    steps = {name: [] for name in ways}
    processor = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, changes in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                measured, used = seconds_of_steps(pathlib.Path(folder), **changes)
            steps[name] += measured
            processor[name].append(used)
    usual = statistics.quantiles(steps["as usual"], n=4)[0]
    print(f"MiniLM, {options.ranks} ranks with one thread, 2 x 8 texts of up to 128 tokens a rank and step, {len(steps['as usual'])} steps each")
    least = {name: min(times) for name, times in processor.items()}
    for name in ("as usual", "reproducible"):
        quartile = statistics.quantiles(steps[name], n=4)[0]
        print(f"{name:>14}: {1000 * quartile:7.1f} ms a step ({100 * (quartile / usual - 1):+.1f} %), {least[name]:.1f} s of the processors "
              f"({100 * (least[name] / least['as usual'] - 1):+.1f} %)")
    # The comparison comes between steps: it shows in the time of the whole run, of all ranks together.
    check = max(0.0, least["check after every step"] - least["as usual"]) / options.steps / options.ranks
    print(f"{'one check':>14}: {1000 * check:7.1f} ms of each rank; every 100 steps {check / usual:.2f} % of a step's time")


if __name__ == "__main__":
    main()
