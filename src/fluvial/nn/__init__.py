"""Small networks that are fields: ``net(x, t, cond=None, r=None)``; NaN in ``x`` or ``t`` comes out as NaN."""

from fluvial.nn.attention import SelfAttention, TokenAttention
from fluvial.nn.by_name import preset
from fluvial.nn.conditioning import Conditioning
from fluvial.nn.diffusers import wrap_diffusers
from fluvial.nn.dit import DiT
from fluvial.nn.embeddings import LabelEmbedding, TimeEmbedding
from fluvial.nn.mlp import MLP
from fluvial.nn.preconditioned import Preconditioned
from fluvial.nn.references import ReferenceEncoder, Referring
from fluvial.nn.support import SupportNet
from fluvial.nn.unet import UNet

__all__ = [
    "MLP",
    "Conditioning",
    "DiT",
    "LabelEmbedding",
    "Preconditioned",
    "ReferenceEncoder",
    "Referring",
    "SelfAttention",
    "SupportNet",
    "TimeEmbedding",
    "TokenAttention",
    "UNet",
    "preset",
    "wrap_diffusers",
]
