"""A frozen T5 that computes the same function as transformers' own in a third of the time.

`patch_t5` replaces the forward pass of single modules in place. PEFT's adapters work as before: if a module is not as
expected (an adapter replaced one of its layers, or there is a key-value cache), it computes as in transformers.
"""

from __future__ import annotations

import types

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftqa.kv_prefix import support_attention
from peftqa.model.fast.kernels import PackedLinear, biased_attention, compiled, gated_gelu, rms_norm

# The names of the classes to replace. T5, mT5 and UMT5 have modules of the same kind in separate source files.
NORM, GATED = ("T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm"), "DenseGatedActDense"
CROSS_ATTENTION = ("T5Attention", "MT5Attention")  # UMT5's takes other arguments


def fused_attention(module, query, key, value, attention_mask, *, position_bias, dropout=0.0, scaling=1.0, **kwargs):
    """The attention that transformers knows as "fused": `biased_attention` if only padding is masked, else sdpa.

    query, key, value: (batch, heads, positions, d_kv); attention_mask: None, or bool (batch, 1, queries, keys), True
    if a query may look at a key; position_bias: (1, heads, queries, keys). Result: (batch, queries, heads, d_kv), and
    None for the weights.
    """
    if module.is_causal or dropout or scaling != 1.0 or not compiled(query) or position_bias.shape[0] != 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask,
            position_bias=position_bias, dropout=dropout, scaling=scaling, **kwargs,
        )  # fmt: skip
    if attention_mask is None:
        allowed = torch.ones(key.shape[0], key.shape[2], dtype=torch.bool)
    else:  # the module is not causal, so every query may look at the same keys, those in the first query's row
        allowed = attention_mask[:, 0, 0]
    return biased_attention(query, key, value, position_bias, allowed).transpose(1, 2), None


AttentionInterface.register("fused", fused_attention)
AttentionMaskInterface.register("fused", sdpa_mask)
support_attention("fused", fused_attention)


def patch_t5(model: PreTrainedModel) -> PreTrainedModel:
    """Replace forward passes of a frozen T5, mT5 or UMT5, in place. Returns the model.

    The weights must not change afterwards, because packed copies are used. The weights do not get a gradient.
    """
    for path, module in model.named_modules():
        kind = type(module).__name__
        if kind in NORM:
            module.forward = types.MethodType(_norm, module)
        elif kind.endswith(GATED) and isinstance(module.act, NewGELUActivation):
            module.forward = types.MethodType(_gated_feed_forward, module)
        elif kind in CROSS_ATTENTION and path.endswith("EncDecAttention"):
            module.forward = types.MethodType(_cross_attention, module)
        elif isinstance(module, nn.Linear) and ".block." in path and PackedLinear.available(module.weight):
            module.forward = PackedLinear(module.weight)
    return model


def _norm(self, hidden_states):
    if hidden_states.dtype != self.weight.dtype:
        return type(self).forward(self, hidden_states)
    return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def _gated_feed_forward(self, hidden_states):
    hidden_states = gated_gelu(self.wi_0(hidden_states), self.wi_1(hidden_states))
    return self.wo(self.dropout(hidden_states).to(self.wo.weight.dtype))


def _cross_attention(
    self, hidden_states, mask=None, key_value_states=None, position_bias=None, past_key_values=None, **kwargs
):
    """Cross-attention that never computes the keys and values of the encoder's positions.

    A prompt has hundreds of encoder positions, an answer one or two decoder positions. Let h be an encoder state, q a
    query, p an attention weight, and W_k and W_v one head's projections. Because q (W_k h) = (W_k^T q) h, it is enough
    to project the few queries. The sum of p (W_v h) is W_v times the sum of p h, so W_v is needed for few sums only.
    That saves an eighth of the model's operations. DeepSeek-V2 (arXiv 2405.04434, section 2.1.2) does the same.

    hidden_states: (batch, decoder positions, d_model); mask: None or bool (batch, 1, queries, keys); key_value_states:
    (batch, encoder positions, d_model); kv_prefix: None, or keys and values (heads, prefix, d_kv) for which the rule of
    `kv_prefix.with_prefix` holds. Result: (batch, decoder positions, d_model), the position bias, and None.
    """
    if past_key_values is not None or (self.training and self.dropout) or not type(self.k) is type(self.v) is nn.Linear:
        return type(self).forward(self, hidden_states, mask, key_value_states, position_bias, past_key_values, **kwargs)
    states, kv_prefix = key_value_states, kwargs.get("kv_prefix")
    (batch, positions, _), heads, d_kv = hidden_states.shape, self.n_heads, self.key_value_proj_dim
    key_weight, value_weight = (layer.weight.view(heads, d_kv, -1) for layer in (self.k, self.v))

    def by_head(x):  # (batch, heads * positions, n) -> (heads, batch * positions, n)
        return x.view(batch, heads, positions, -1).transpose(0, 1).reshape(heads, batch * positions, -1)

    def by_example(x):  # and back
        return x.view(heads, batch, positions, -1).transpose(0, 1).reshape(batch, heads * positions, -1)

    query = self.q(hidden_states).view(batch, positions, heads, d_kv).permute(2, 0, 1, 3).reshape(heads, -1, d_kv)
    scores = torch.bmm(by_example(torch.bmm(query, key_weight)), states.transpose(1, 2)).float()
    if mask is not None:
        scores = scores.masked_fill(~mask[:, 0, :1], torch.finfo(torch.float32).min)
    prefix = 0
    if kv_prefix is not None:  # after the mask, because a prefix is never masked
        prefix_key, prefix_value = (x.to(query.dtype) for x in kv_prefix)
        prefix = prefix_key.shape[1]
        scores = torch.cat([by_example(torch.bmm(query, prefix_key.transpose(1, 2))).float(), scores], dim=-1)
    weights = scores.softmax(-1).to(states.dtype)
    context = by_head(torch.bmm(weights[..., prefix:], states))
    out = torch.bmm(context, value_weight.transpose(1, 2))
    if prefix:
        out = out + torch.bmm(by_head(weights[..., :prefix]), prefix_value)
    out = out.view(heads, batch, positions, d_kv).permute(1, 2, 0, 3).reshape(batch, positions, -1)
    return self.o(out), position_bias, None
