"""How a round trains, as far as a person or a benchmark may say. Knows nothing else."""

from pydantic import BaseModel, ConfigDict


class Training(BaseModel):
    """Hyperparameters that the person or a benchmark may set; see `train.Recipe`.

    `top_layers` is the share of the layers that is trained, from the top; None: what `layers`
    measures on the base.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = 8
    alpha: float = 16.0
    top_layers: float | None = None
    modules: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    exposures: int = 36
    least_steps: int = 170
    batch: int = 8
    replay_batch: int = 20
    replay_exposures: int = 28
    anchor_batch: int = 2
    short_anchor_batch: int = 3
    learning_rate: float = 5e-3
    kl_weight: float = 20.0
    wordings: int = 24
    max_tokens: int = 512
