"""Vectors of texts for clients: the request's fields, and what is answered.

Knows no HTTP.
"""

import base64
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from acclimate.daemon.completion import BadRequest
from acclimate.daemon.embed import MAX_TOKENS, Embedder
from acclimate.store.errors import NotFound

MAX_TEXTS = 2048  # OpenAI's
NAME = "embedder"


class EmbeddingRequest(BaseModel):
    """The body of /v1/embeddings, as OpenAI has it."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    model: str = Field(default=NAME, min_length=1, max_length=200)
    input: list[str] = Field(min_length=1, max_length=MAX_TEXTS)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)

    @field_validator("input", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _texts(cls, given: Any) -> Any:
        texts = [given] if isinstance(given, str) else given
        if isinstance(texts, list) and any(isinstance(text, int | list) for text in texts):
            raise ValueError("texts are expected: token numbers belong to another vocabulary")
        return texts

    @field_validator("input")
    @classmethod
    def _not_empty(cls, texts: list[str]) -> list[str]:
        if not all(texts):
            raise ValueError("an empty text has no vector")
        return texts


def embeddings(asked: EmbeddingRequest, embedder: Embedder, name: str) -> dict[str, Any]:
    """The answer in OpenAI's shape; `name` is the embedder's own.

    Vectors have unit length, with fewer `dimensions` too; a long text is cut at 256 tokens.
    Raises NotFound for another model, BadRequest for too many dimensions, EngineError.
    """
    if asked.model not in (NAME, name):
        raise NotFound(f"there is no embedding model {asked.model[:40]}", f"use {NAME} or {name}")
    width = asked.dimensions or embedder.dimensions
    if width > embedder.dimensions:
        raise BadRequest(f"dimensions: {name} has {embedder.dimensions}", param="dimensions")
    vectors = embedder.embed(asked.input)[:, :width]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    counted = sum(min(len(embedder.tokens(text)), MAX_TOKENS) for text in asked.input)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, asked)}
        for index, vector in enumerate(vectors.astype("<f4"))
    ]
    usage = {"prompt_tokens": counted, "total_tokens": counted}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _written(vector: np.ndarray, asked: EmbeddingRequest) -> list[float] | str:
    if asked.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode("ascii")
    return [float(value) for value in vector]
