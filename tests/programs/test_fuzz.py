"""The fuzz targets take what they start from, also where there is no fuzzer."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.programs.fuzz.seeds import SEEDS
from trio_ws._protocol.extensions import deflate
from trio_ws._protocol.handshake import client

FOLDER = Path(__file__).parent / "fuzz"


def test_each_target_has_seeds() -> None:
    assert SEEDS.keys() == {path.stem for path in FOLDER.glob("fuzz_*.py")}
    assert all(SEEDS.values())


@pytest.fixture
def atheris(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the fuzzer, which guides by what runs; nothing is guided here."""

    def instrument_imports(include: object) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    module = ModuleType("atheris")
    module.__dict__["instrument_imports"] = instrument_imports
    monkeypatch.setitem(sys.modules, "atheris", module)
    monkeypatch.setenv("TRIO_WS_PURE", "1")  # as some targets do
    monkeypatch.setattr(deflate, "_fast", deflate._fast)
    monkeypatch.setattr(client, "generate_key", lambda: "dGhlIHNhbXBsZSBub25jZQ==")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("name", SEEDS)
def test_a_target_takes_its_seeds(name: str, atheris: None) -> None:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    target = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(target)
    for seed in SEEDS[name]:
        target.test_one_input(seed)
        target.test_one_input(seed[: len(seed) // 2])
