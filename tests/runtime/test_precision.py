"""Which precision "auto" is, by what a device says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mult.runtime.precision import multiplies_bf16, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"neon": True, "bf16": True}, "bf16"),
        ({"neon": True, "bf16": False}, "fp32"),
    ],
)
def test_a_cpu_is_asked(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", CPU) == expected
    assert [resolve_precision(precision, CPU) for precision in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


def test_a_torch_that_knows_no_cpu_and_other_devices_take_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("auto", torch.device("meta")) == "fp32"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_for_its_own_instructions(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert multiplies_bf16(torch.device("cuda")) == native
