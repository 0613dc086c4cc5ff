"""After a warm-up neither the service nor the learning process compiles anything."""

from __future__ import annotations

import ast
import inspect

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
