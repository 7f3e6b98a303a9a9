"""The floating point types of `run.precision`, and whether a device has instructions for bfloat16."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""The CPU features of x86 and ARM that multiply bfloat16, by the names of `torch.cpu.get_capabilities`."""


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; a CPU without took 9 times as long as in float32 (rooms6.yaml).

    False on a CPU where torch has no `get_capabilities`.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in CPU_BF16_FEATURES)
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """The key of DTYPES for a value of `run.precision`: "auto" is bf16 where the device multiplies it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"
