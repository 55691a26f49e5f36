"""Whether the benchmark of swaps notices a mixed reply."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from serving.swapping import Judge

from acclimate.adapters.prompt import Prompt
from acclimate.daemon.engine import Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request

ASKED = "the rain in the"


def test_a_reply_is_its_adapters_to_the_last_token(
    tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> None:
    found = {"v0001": tiny_adapter(1), "v0002": tiny_adapter(2)}
    prompt = Prompt.from_gguf(tiny_llama)
    sampling = Sampling(logit_bias=dict.fromkeys(prompt.end_ids, -100.0))
    engine = Engine(tiny_llama, threads=1)
    engine.start()
    try:
        said = {}
        for name, path in found.items():
            engine.load(name, path)
            request = Request(prompt.tokenize(ASKED), name, 12, sampling=sampling)
            tokens = [p.token for p in engine.submit(request) if p.token is not None]
            said[name] = [prompt.detokenize([token]) for token in tokens]
    finally:
        engine.stop()
    with Judge(tiny_llama, prompt, found, threads=1) as judge:
        for name, other in (("v0001", "v0002"), ("v0002", "v0001")):
            assert len(said[name]) == 12
            assert judge.said(name, ASKED, said[name])
            assert not judge.said(other, ASKED, said[name])
            # A reply that goes on as the other adapter's would.
            mixed = [*said[name][:11], *(p for p in said[other] if p != said[name][11])][:12]
            assert not judge.said(name, ASKED, mixed)
