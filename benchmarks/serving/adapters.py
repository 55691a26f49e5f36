"""Random adapters of a real base, published in a home as rounds publish theirs."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from acclimate.adapters.gguf_check import read_header
from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file, version_name

LAYERS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
RANK = 8  # as `[learn] rank`
SIZE = 0.6  # of what an adapter adds: enough to say something else, not so much that it is noise


def write(base: Path, path: Path, seed: int) -> None:
    """A LoRA on every linear layer, alpha 0; float32 as ours are."""
    header = read_header(base)
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, header.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 0.0)
    for name, tensor in header.tensors.items():
        if not any(name.endswith(f".{layer}.weight") for layer in LAYERS):
            continue
        columns, rows = tensor.shape
        a = rng.standard_normal((RANK, columns)) / np.sqrt(columns)
        b = rng.standard_normal((rows, RANK)) * SIZE / np.sqrt(RANK)
        writer.add_tensor(f"{name}.lora_a", a.astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", b.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def publish(home: Home, base: Path, count: int) -> dict[str, Path]:
    """So many adapters in a home that no daemon has; their files by name. The base stays live."""
    found: dict[str, Path] = {}
    db = Db(home.db)
    try:
        sha256 = sha256_file(base)
        for seed in range(count):
            version, parent = ledger.next_version(db), ledger.live(db)
            folder = home.adapter_dir(version)
            folder.mkdir()
            file = folder / ledger.ADAPTER_FILE
            write(base, file, seed)
            round_id = ledger.start_round(db, parent, seed, ())
            card = {"version": version, "round": round_id, "base_sha256": sha256}
            ledger.publish(db, round_id, version, parent, sha256_file(file), 1.0, card, ())
            found[version_name(version)] = file
        ledger.set_live(db, None, "rollback")
    finally:
        db.close()
    return found
