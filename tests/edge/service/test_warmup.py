"""After a warm-up neither the service nor the learning process compiles anything."""

from __future__ import annotations

import ast
import importlib
import inspect
import re

import pytest

from dwell.markov import fit, fit_kernels
from edge.service import warmup


def test_all_kernels_that_learning_calls_are_compiled() -> None:
    called = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(fit)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kernels"
    }
    kernels = [name for name in sorted(called) if hasattr(getattr(fit_kernels, name), "signatures")]
    assert len(kernels) >= 2
    warmup._learn()
    assert [name for name in kernels if not getattr(fit_kernels, name).signatures] == []


@pytest.mark.parametrize("module", ["edge.service.warmup", "edge.service.learning", "edge.service.page_process",
                                    "edge.crm.directory_file"])  # fmt: skip
def test_processes_are_of_this_release_wherever_they_are_started(module: str) -> None:
    """`python -m` would take `edge` from the current folder, such as a checkout from which a release is installed."""
    source = inspect.getsource(importlib.import_module(module))
    assert re.findall(r'sys\.executable,\s*"-P",\s*"-m"', source)
    assert not re.findall(r'sys\.executable,\s*"-m"', source)
