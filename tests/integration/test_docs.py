"""The commands that README.md and docs/ show, run as they stand on a small run called imdb.toml."""
import json
import re
import shlex
import shutil
import tomllib

import pytest

import harness

PAGES = sorted(path for path in [harness.ROOT / "README.md", *(harness.ROOT / "docs").glob("*.md")])
PROGRAMS = ("dtrain", "mpirun", "srun", "sbatch", "hf", "cmake", "pip", "./dev")
# What needs more than this test has, and the test that runs it.
ELSEWHERE = {
    r"\./dev ": "tests/run.py",  # the command that runs this test, and those of the same script
    r"hf |pip |dtrain .*hub\.push": "test_hub.py",
    r"cmake |mpirun .*examples/": "test_package.py",
    r"srun |sbatch |dtrain slurm ": "../faults/test_slurm.py",
    r"dtrain .*--hostfile": "../faults/test_stalls.py",
}


def commands(path):
    """Indented lines that begin with a program of PROGRAMS, without the remark behind them."""
    found = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced = fenced != line.startswith("```")
        match = re.match(r"    (\S+) .*", line)
        if not fenced and match and match.group(1) in PROGRAMS:
            found.append(re.sub(r"\s+# .*", "", line.strip()))
    return found


def elsewhere(command):
    return next((test for pattern, test in ELSEWHERE.items() if re.match(pattern, command)), None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_bert):
    """imdb.toml with its finished run in results/imdb, and new.jsonl."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = harness.recipe(folder, tiny_bert, training={"output_dir": "results/imdb", "overwrite_output_dir": True, "max_steps": 2,
                                                         "save_strategy": "steps", "save_steps": 500},
                            sweep={"trials": 2, "metric": "loss"})
    recipe.rename(folder / "imdb.toml")
    with open(folder / "imdb.toml", "a", encoding="utf-8") as file:
        file.write('"training.learning_rate" = { low = 1e-5, high = 1e-3, log = true }\n')
    rows = [{"text": f"a film of {n} acts"} for n in range(3)]
    (folder / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert harness.run_line([str(harness.DTRAIN), "imdb.toml", "--set", "training.max_steps=500"], cwd=folder).code == 0
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_shown_works(page, request, tmp_path):
    shown = [command for command in commands(page) if not elsewhere(command)]
    if not shown:
        return
    folder = shutil.copytree(request.getfixturevalue("finished"), tmp_path / "folder")
    for command in shown:
        words = [str(harness.DTRAIN) if word == "dtrain" else word for word in shlex.split(command)]
        outcome = harness.run_line(words, cwd=folder, OMPI_MCA_rmaps_base_oversubscribe="1")
        assert outcome.code == 0, f"{command}\n{outcome.text}"


def test_what_is_run_elsewhere_is():
    for command in [command for page in PAGES for command in commands(page)]:
        test = elsewhere(command)
        assert test is None or (harness.ROOT / "tests" / "integration" / test).is_file() or test == "tests/run.py", command


def test_the_file_of_the_readme_is_understood(tmp_path):
    text = (harness.ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```toml\n(.*?)```", text, re.DOTALL).group(1)
    (tmp_path / "imdb.toml").write_text(shown, encoding="utf-8")
    outcome = harness.run("config", tmp_path / "imdb.toml")
    assert outcome.code == 0, outcome.text
    for section, keys in tomllib.loads(shown).items():
        assert all(key in outcome.text for key in keys), section
