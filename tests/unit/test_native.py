"""How models are loaded where llama.cpp's kernels for the processor are broken."""

import pytest

from acclimate.adapters import native


@pytest.mark.parametrize(
    ("info", "repacked"),
    [
        (b"CPU : AVX512_BF16 = 1 | AMX_INT8 = 1 | LLAMAFILE = 1 | ", False),
        (b"CPU : AVX512_BF16 = 1 | LLAMAFILE = 1 | ", True),
        (b"CPU : NEON = 1 | REPACK = 1 | ", True),
    ],
)
def test_weights_are_not_repacked_for_amx(
    info: bytes, repacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.llama_cpp, "llama_print_system_info", lambda: info)
    assert native.llama_cpp.llama_model_default_params().use_extra_bufts
    assert native.model_params().use_extra_bufts == repacked
