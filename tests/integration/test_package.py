"""dtrain as a library: installed, moved, used by the projects of examples/, and plugins. docs/custom-models.md is the script:
each of its commands is run, in its order, in a folder that looks like the root of the repository."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

import harness

USAGE = 64
MODEL = "model.safetensors"


def environment(scratch):
    """The compiler cache must not see the folder's random name; nothing of dtrain is found but by the installed files."""
    return harness.environment(CCACHE_BASEDIR=str(scratch), CCACHE_NOHASHDIR="1", OMP_NUM_THREADS="1",
                               CMAKE_GENERATOR="Ninja", CMAKE_CXX_COMPILER_LAUNCHER="ccache")


def documented_commands():
    text = (harness.ROOT / "docs" / "custom-models.md").read_text(encoding="utf-8")
    outside_fences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [line.strip() for line in outside_fences.splitlines() if line.startswith("    ")]


class Walkthrough:
    """Runs the commands of the page, once; `outputs` has what each printed."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.prefix = scratch / "opt"
        self.outputs = {}
        shutil.copytree(harness.ROOT / "examples", scratch / "examples", ignore=shutil.ignore_patterns("build"))
        (scratch / "build").symlink_to(harness.BUILD.resolve())
        (scratch / "tests").symlink_to(harness.ROOT / "tests")
        for command in documented_commands():
            self.outputs[command] = self.run(command)

    def run(self, command, code=0):
        line = command.replace("mpirun -np", "mpirun --oversubscribe -np")
        installs = line.startswith("cmake --install")
        line = line.replace("/opt/dtrain", str(self.scratch / "staged" if installs else self.prefix))
        done = subprocess.run(shlex.split(line), cwd=self.scratch, env=environment(self.scratch), capture_output=True, text=True,
                              check=False, timeout=300 * harness.SLOWNESS)
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        if installs:
            (self.scratch / "staged").rename(self.prefix)  # everything after this finds it in another place
        return done.stdout + done.stderr

    def output(self, beginning):
        return next(text for command, text in self.outputs.items() if command.startswith(beginning))

    def log(self, name):
        return harness.log_records(self.scratch / "results" / name)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    return Walkthrough(tmp_path_factory.mktemp("package"))


def values(records, *keys):
    """{key: its values in the order of the records}"""
    return {key: [record[key] for record in records if key in record] for key in keys}


def expect_equal_runs(one, other, *keys, tolerance):
    mine, others = values(one, *keys), values(other, *keys)
    for key in keys:
        assert mine[key] and len(mine[key]) == len(others[key]), key
        assert mine[key] == pytest.approx(others[key], rel=tolerance, abs=tolerance), key


def test_installed_files_know_nothing_of_the_build(package):
    libraries = sorted((package.prefix / "lib").glob("libdtrain_*.so"))
    assert len(libraries) >= 9
    for path in [package.prefix / "bin" / "dtrain", *libraries]:
        dynamic = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
        assert "$ORIGIN" in dynamic, path
        assert str(harness.BUILD.resolve()) not in dynamic, dynamic
    found = subprocess.run(["ldd", package.prefix / "bin" / "dtrain"], check=True, capture_output=True, text=True).stdout
    assert "not found" not in found
    for line in found.splitlines():
        if "libdtrain_" in line:
            assert str(package.prefix) in line, line
    for path in (package.prefix / "lib" / "cmake" / "dtrain").iterdir():
        text = path.read_text(encoding="utf-8")
        for folder in (harness.ROOT, harness.BUILD.resolve(), package.scratch / "staged"):
            assert str(folder) + "/" not in text, path


def test_only_public_headers_and_all_they_include(package):
    include = package.prefix / "include" / "dtrain"
    headers = sorted(str(path.relative_to(include)) for path in include.rglob("*.h"))
    assert "dist/reducer.h" in headers and "trainer/trainer.h" in headers
    for private in ("launcher/arguments.h", "trainer/kernels/attention.h", "trainer/models/bert.h", "dist/mpi_check.h"):
        assert private not in headers
    project = package.scratch / "headers"
    project.mkdir()
    (project / "all.cpp").write_text("".join(f"#include <{header}>\n" for header in headers) + "int main() { return 0; }\n")
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(headers LANGUAGES CXX)\nfind_package(dtrain REQUIRED)\n"
        "add_executable(together all.cpp)\ntarget_link_libraries(together PRIVATE dtrain::launcher)\n")
    package.run("cmake -S headers -B headers/build -DCMAKE_PREFIX_PATH=/opt/dtrain")
    package.run("cmake --build headers/build")


def test_another_version_is_not_found(package):
    project = package.scratch / "version"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(version LANGUAGES CXX)\nfind_package(dtrain 9.9 REQUIRED)\n")
    assert "9.9" in package.run("cmake -S version -B version/build -DCMAKE_PREFIX_PATH=/opt/dtrain", code=1)


def test_bare_loop(package):
    one = package.output("examples/bare_loop/build/bare_loop")
    four = package.output("mpirun -np 4 examples/bare_loop")
    losses = [[float(line.split()[-1]) for line in text.splitlines() if line.startswith("epoch")] for text in (one, four)]
    assert len(losses[0]) == 20 and losses[0][-1] < 0.2 * losses[0][0], one
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)
    assert "the number of ranks must divide 64" in package.run(
        "mpirun -np 3 examples/bare_loop/build/bare_loop", code=USAGE)


def test_cnn(package):
    one, four = package.log("cnn"), package.log("cnn4")
    expect_equal_runs(one, four, "loss", "grad_norm", "eval_loss", "eval_accuracy", "eval_worst_recall", tolerance=1e-4)
    accuracy = values(one, "eval_accuracy", "eval_worst_recall")
    assert accuracy["eval_accuracy"][-1] > 0.9, accuracy
    assert all(worst <= mean for worst, mean in zip(accuracy["eval_worst_recall"], accuracy["eval_accuracy"]))
    # The callback's decision stopped all ranks after the same step.
    assert "solved after step" in package.output("examples/custom_model/build/cnn")
    results = json.loads((package.scratch / "results" / "cnn" / "run.json").read_text())
    assert results["state"] == "done" and results["step"] < 8 * 30


def test_regression_and_resume(package):
    one, four = package.log("regression"), package.log("regression4")
    expect_equal_runs(one, four, "loss", "learning_rate", "eval_loss", "eval_mae", tolerance=1e-4)
    # The schedule of the program: at its peak after a tenth of the 320 steps.
    rates = values(one, "learning_rate")["learning_rate"]
    assert rates[1] == pytest.approx(0.02 * (1 - (39 / 320) ** 2) ** 0.5)
    printed = re.search(r"cos\(1\) is about ([\d.]+)", package.output("examples/custom_model/build/regression"))
    assert float(printed.group(1)) == pytest.approx(0.540, abs=0.03)
    folders = [package.scratch / "results" / name for name in ("regression", "again")]
    assert (folders[0] / MODEL).read_bytes() == (folders[1] / MODEL).read_bytes()
    assert (folders[1] / "checkpoint-320").exists() and not (folders[1] / "checkpoint-80").exists()


def test_what_a_program_of_its_own_does_not_do(package):
    program = "examples/custom_model/build/regression"
    assert "has no other command" in package.run(f"{program} evaluate examples/custom_model/regression.toml", code=USAGE)
    assert "training.push_to_hub" in package.run(
        f"{program} examples/custom_model/regression.toml --set training.push_to_hub=true "
        "--set training.hub_model_id=me/mine --set training.output_dir=results/pushed", code=USAGE)
    assert "learning_rat" in package.run(f"{program} examples/custom_model/regression.toml --set training.learning_rat=1",
                                         code=USAGE)


def test_plugin(package):
    one = package.log("reviews")
    assert values(one, "eval_accuracy")["eval_accuracy"][-1] > 0.6
    folder = package.scratch / "results" / "reviews"
    config = json.loads((folder / "config.json").read_text())
    assert config == {"dtrain_model": "text_cnn", "model_type": "text_cnn", "problem_type": "single_label_classification",
                      "id2label": {"0": "negative", "1": "positive"}}
    # Evaluation by itself loads the weights that training left and finds the same numbers.
    printed = dict(line.split() for line in package.output("/opt/dtrain/bin/dtrain evaluate").splitlines()
                   if line.startswith("eval_"))
    last = next(record for record in reversed(one) if "eval_loss" in record)
    for key in ("eval_loss", "eval_accuracy", "eval_specificity"):
        assert float(printed[key]) == pytest.approx(last[key], abs=6e-5), key
    package.run("mpirun -np 4 /opt/dtrain/bin/dtrain examples/plugin/reviews.toml --set training.output_dir=results/reviews4 "
                "--set training.per_device_train_batch_size=8")
    expect_equal_runs(one, package.log("reviews4"), "loss", "eval_loss", "eval_specificity", tolerance=1e-4)
    package.run("/opt/dtrain/bin/dtrain predict examples/plugin/reviews.toml")
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 1000 and {row["label"] for row in rows} <= {"negative", "positive"}


def refusal(package, *settings, ranks=None):
    start = f"mpirun -np {ranks} " if ranks else ""
    options = " ".join(f"--set {setting}" for setting in ("training.output_dir=results/refused", *settings))
    text = package.run(f"{start}/opt/dtrain/bin/dtrain examples/plugin/reviews.toml {options}", code=USAGE)
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, text
    return errors[0]


def test_unknown_names_of_a_plugin(package):
    assert 'has no model "text_rnn"' in refusal(package, "model.name=text_rnn")
    assert 'a collator "sorted"' in refusal(package, "data.collator=sorted")
    assert 'unknown metric "specifity"' in refusal(package, "metrics.compute=specifity")
    assert "no such file" in refusal(package, "model.plugin=nowhere.so")
    assert "is no plugin of dtrain" in refusal(package, f"model.plugin={package.prefix}/lib/libdtrain_core.so")


def test_a_plugin_of_another_version(package):
    """The same plugin, built with the headers of another version."""
    prefix = package.scratch / "other"
    shutil.copytree(package.prefix, prefix, symlinks=True)
    header = prefix / "include" / "dtrain" / "core" / "version.h"
    header.write_text(re.sub(r'"[\d.]+"', '"0.0.9"', header.read_text()))
    package.run(f"cmake -S examples/plugin -B examples/plugin/other -DCMAKE_PREFIX_PATH={prefix}")
    package.run("cmake --build examples/plugin/other")
    for ranks in (None, 2):
        error = refusal(package, "model.plugin=examples/plugin/other/libmine.so", ranks=ranks)
        assert "libmine.so was built with dtrain 0.0.9, not 0.1.0" in error


@pytest.mark.parametrize("field,value,reason", [("compiler", "clang 99", "compiler clang 99, not"),
                                                ("libtorch", "1.0.0", "LibTorch 1.0.0, not 2.11.0")])
def test_a_plugin_of_another_build(package, field, value, reason):
    """It must be refused before any of its code runs: this one would end the program."""
    build = {"dtrain": "0.1.0", "libtorch": "2.11.0", "compiler": "12"} | {field: value}
    source = package.scratch / f"{field}.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "struct { const char* dtrain; const char* libtorch; const char* compiler; unsigned long long layout; }\n"
        f'  dtrain_plugin_build = {{"{build["dtrain"]}", "{build["libtorch"]}", "{build["compiler"]}", 1}};\n'
        "void dtrain_plugin_register(void* registry) { (void)registry; abort(); }\n")
    package.run(f"cc -shared -fPIC -o lib{field}.so {field}.c")
    assert reason in refusal(package, f"model.plugin=lib{field}.so")


assert pathlib.Path(harness.DTRAIN).exists(), f"{harness.DTRAIN} is missing: run ./dev build"
assert os.path.isdir(harness.ROOT / "examples")
