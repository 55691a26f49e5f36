"""A thin typed layer over llama_cpp's low-level API: model, vocabulary, adapter, context, batch.

Owns native memory and turns null pointers into errors; knows no requests and no threads.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from acclimate.adapters import native
from acclimate.adapters.native import LoadedModel, llama_cpp, model_params
from acclimate.store.errors import AdapterError, EngineError, ModelError

NO_SLOT = 1  # llama_decode: no room in the KV cache, nothing was changed


class Model:
    """One GGUF in memory. Its adapters have to be closed before it."""

    def __init__(
        self, path: Path, *, mmap: bool = True, gpu_layers: int | Literal["auto"] = "auto"
    ) -> None:
        params = model_params()
        if gpu_layers != "auto":  # llama.cpp's own choice: all that fit
            params.n_gpu_layers = gpu_layers
        params.load_mode = (
            llama_cpp.LLAMA_LOAD_MODE_MMAP if mmap else llama_cpp.LLAMA_LOAD_MODE_NONE
        )
        pointer = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not pointer:
            raise ModelError(f"{path} cannot be loaded: {native.complaint()}", "acclimate doctor")
        self._loaded: LoadedModel | None = LoadedModel(pointer)
        self.parameters = int(llama_cpp.llama_model_n_params(self.pointer))
        self.trained_context = int(llama_cpp.llama_model_n_ctx_train(self.pointer))
        self.width = int(llama_cpp.llama_model_n_embd(self.pointer))
        # A recurrent state cannot be cut back or shared, so prefixes cannot be reused.
        self.recurrent = bool(
            llama_cpp.llama_model_is_recurrent(self.pointer)
            or llama_cpp.llama_model_is_hybrid(self.pointer)
        )
        self.vocabulary = Vocabulary(llama_cpp.llama_model_get_vocab(self.pointer))

    @property
    def loaded(self) -> LoadedModel:
        """What keeps it in memory, for who needs its vocabulary. Raises EngineError when closed."""
        if self._loaded is None:
            raise EngineError("the model is closed")
        return self._loaded

    @property
    def pointer(self) -> Any:
        return self.loaded.pointer

    def close(self) -> None:
        """Free it, unless somebody still needs its vocabulary."""
        self._loaded = None


class Vocabulary:
    """Tokens to bytes, remembered: a token costs a native call only the first time."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.size = int(llama_cpp.llama_vocab_n_tokens(pointer))
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for: any part of a character, or nothing (control)."""
        piece = self._pieces.get(token)
        if piece is None:
            size = 64
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self.pointer, token, buffer, size, 0, False)
            if count < 0:
                buffer = ctypes.create_string_buffer(-count)
                count = llama_cpp.llama_token_to_piece(
                    self.pointer, token, buffer, -count, 0, False
                )
            piece = self._pieces[token] = buffer.raw[: max(count, 0)]
        return piece

    def is_end(self, token: int) -> bool:
        """Whether the token ends a reply (end of text, end of turn)."""
        end = self._ends.get(token)
        if end is None:
            end = self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self.pointer, token))
        return end

    def tokenize(self, text: str, *, limit: int | None = None) -> list[int]:
        """Tokens of a text with the model's own start and end tokens, cut at `limit`."""
        data = text.encode("utf-8", "replace")
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(
            self.pointer, data, len(data), buffer, len(buffer), True, False
        )
        if count < 0:
            raise EngineError("text cannot be tokenised", "shorten it")
        tokens: list[int] = buffer[:count]
        if limit is not None and count > limit:
            tokens = [*tokens[: limit - 1], tokens[-1]]  # keeps the end token
        return tokens


class Adapter:
    """One LoRA in memory, bound to one model."""

    def __init__(self, model: Model, path: Path, scale: float) -> None:
        self.path = path
        self.scale = scale
        self.pointer = llama_cpp.llama_adapter_lora_init(model.pointer, str(path).encode())
        if not self.pointer:
            raise AdapterError(f"{path} cannot be loaded: {native.complaint()}")

    def close(self) -> None:
        if self.pointer:
            llama_cpp.llama_adapter_lora_free(self.pointer)
            self.pointer = None


class Batch:
    """Arrays for llama_decode, made once and filled by slices."""

    def __init__(self, size: int, sequences: int) -> None:
        self.size = size
        self.count = 0
        self._token = (llama_cpp.llama_token * size)()
        self._position = (llama_cpp.llama_pos * size)()
        self._wanted = (ctypes.c_int8 * size)()
        self._sequence_count = (ctypes.c_int32 * size)(*[1] * size)
        self._ids = [(llama_cpp.llama_seq_id * 1)(number) for number in range(sequences)]
        pointer = ctypes.POINTER(llama_cpp.llama_seq_id)
        self._sequence = (pointer * size)()
        self._id_pointers = [ctypes.cast(number, pointer) for number in self._ids]
        self.native = llama_cpp.llama_batch(
            n_tokens=0,
            token=ctypes.cast(self._token, ctypes.POINTER(llama_cpp.llama_token)),
            embd=None,
            pos=ctypes.cast(self._position, ctypes.POINTER(llama_cpp.llama_pos)),
            n_seq_id=ctypes.cast(self._sequence_count, ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._sequence, ctypes.POINTER(pointer)),
            logits=ctypes.cast(self._wanted, ctypes.POINTER(ctypes.c_int8)),
        )

    def clear(self) -> None:
        self.count = 0

    def add(self, sequence: int, tokens: Sequence[int], position: int, *, want: int) -> int:
        """Append tokens of one sequence; `want` so many last outputs. Returns the first's index."""
        start, end = self.count, self.count + len(tokens)
        self._token[start:end] = tokens
        self._position[start:end] = range(position, position + len(tokens))
        self._sequence[start:end] = [self._id_pointers[sequence]] * len(tokens)
        self._wanted[start:end] = [0] * len(tokens)
        self._wanted[end - want : end] = [1] * want
        self.count = end
        return end - want

    def want_all(self, start: int = 0) -> None:
        """The output of every token from index `start` on; pooling needs all of them."""
        self._wanted[start : self.count] = [1] * (self.count - start)


class Context:
    """One llama_context: a KV cache that belongs to one adapter (or none) for ever."""

    def __init__(
        self,
        model: Model,
        adapter: Adapter | None = None,
        *,
        tokens: int,
        sequences: int = 1,
        batch: int = 256,
        threads: int = 1,
        flash_attention: bool | None = None,
        embeddings: bool = False,
        pooled: bool = True,
        outputs: int | None = None,
    ) -> None:
        """`outputs` bounds how many tokens of a batch have logits: by default one a sequence.
        `flash_attention` None leaves it to llama.cpp. Of `embeddings` that are not `pooled` each
        token has its own (`states`)."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = params.n_ubatch = batch
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        if flash_attention is not None:
            params.flash_attn_type = int(flash_attention)
        params.kv_unified = True
        params.no_perf = True
        params.embeddings = embeddings
        if not pooled:
            params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        if not embeddings:
            # Room for the logits of every batch token would be 50 MB with a large vocabulary.
            params.n_outputs_max = outputs or sequences
        self._threads = threads
        self.adapter = adapter
        self.vocabulary_size = model.vocabulary.size
        self.width = model.width
        self.pointer = llama_cpp.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise EngineError(
                f"no context of {tokens} tokens can be made: {native.complaint()}",
                "lower context_tokens",
            )
        self.memory = llama_cpp.llama_get_memory(self.pointer)
        self.tokens = int(llama_cpp.llama_n_ctx(self.pointer))
        self.batch = Batch(batch, sequences)
        if adapter is not None and not self._apply(adapter):
            self.close()
            raise AdapterError(f"{adapter.path} cannot be applied: {native.complaint()}")

    def _apply(self, adapter: Adapter) -> bool:
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter.pointer)
        scales = (ctypes.c_float * 1)(adapter.scale)
        return bool(llama_cpp.llama_set_adapters_lora(self.pointer, pointers, 1, scales) == 0)

    def decode(self) -> int:
        """Run the batch: 0 done, 1 no room (nothing changed), otherwise the context is broken."""
        self.batch.native.n_tokens = self.batch.count
        return int(llama_cpp.llama_decode(self.pointer, self.batch.native))

    def encode(self, tokens: Sequence[int]) -> int:
        """Run one text through an encoder, every token an output; 0 when done."""
        self.batch.clear()
        self.batch.add(0, tokens, 0, want=True)
        self.batch.want_all()
        self.batch.native.n_tokens = self.batch.count
        return int(llama_cpp.llama_encode(self.pointer, self.batch.native))

    def warm(self, token: int) -> None:
        """Decode one token and forget it: llama.cpp plans its graphs on the first call.

        That planning reads the model's list of adapters, so it must not run on the decode thread
        while another thread loads an adapter.
        """
        # One thread: OpenMP keeps a team of threads for every thread that ever computed, and as
        # soon as two teams exceed the cores none of them spins any more (110 → 33 tokens/s).
        llama_cpp.llama_set_n_threads(self.pointer, 1, 1)
        self.batch.clear()
        self.batch.add(0, [token], 0, want=True)
        result = self.decode()
        llama_cpp.llama_set_n_threads(self.pointer, self._threads, self._threads)
        if result != 0:
            raise EngineError(f"the model cannot decode: {native.complaint()}")
        self.clear()

    def clear(self) -> None:
        if self.memory:
            llama_cpp.llama_memory_clear(self.memory, False)

    def cut(self, sequence: int, start: int) -> bool:
        """Forget a sequence from a position on; False when the model's state cannot be cut."""
        return bool(llama_cpp.llama_memory_seq_rm(self.memory, sequence, start, -1))

    def share(self, source: int, target: int, end: int) -> None:
        """Let `target` begin with the first `end` tokens of `source`, without a copy."""
        llama_cpp.llama_memory_seq_cp(self.memory, source, target, 0, end)

    def logits(self, index: int) -> np.ndarray:
        """The logits of one output, (vocabulary,) float32: a view, valid until the next decode."""
        pointer = llama_cpp.llama_get_logits_ith(self.pointer, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))

    def margin(self, index: int) -> float:
        """By how much the likeliest token of one output is likelier than the next, in logits."""
        best = np.partition(self.logits(index), -2)[-2:]
        return float(best[1] - best[0])

    def states(self, count: int) -> np.ndarray:
        """The vectors of the first tokens of an encoded text, (count, width) float32: a view."""
        pointer = llama_cpp.llama_get_embeddings(self.pointer)
        return np.ctypeslib.as_array(pointer, shape=(count, self.width))

    def close(self) -> None:
        if self.pointer:
            llama_cpp.llama_free(self.pointer)
            self.pointer = None
            self.memory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
