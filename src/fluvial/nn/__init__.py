"""Small networks that are fields: ``net(x, t, cond=None, r=None)``."""

from fluvial.nn.embeddings import LabelEmbedding, TimeEmbedding
from fluvial.nn.mlp import MLP

__all__ = ["MLP", "LabelEmbedding", "TimeEmbedding"]
