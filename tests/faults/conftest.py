"""Fixtures of the tests of faults; the processes are started by the harness of tests/integration."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import faults  # noqa: E402
from fixtures import tiny_bert  # noqa: E402,F401


def pytest_configure(config):
    config.addinivalue_line("markers", "row(name, fault): the row of the fault matrix that a test shows")


@pytest.fixture
def row(request):
    """Of @pytest.mark.row("F01", "kill -9 of a rank"); reported whether the test passes or not."""
    result = faults.Row(*request.node.get_closest_marker("row").args)
    yield result
    result.close()
