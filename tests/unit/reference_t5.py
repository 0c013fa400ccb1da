"""T5 with a prefix in plain tensor operations: what the tests of `kv_prefix` compare with."""

import math

import torch


def layer_norm(x, weight, epsilon=1e-6):
    """Root mean square norm; transformers takes the variance in float32 whatever the dtype of x."""
    return weight * (x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon))


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bucket(distance, bidirectional, buckets, max_distance):
    """T5's bucket of the distance from a query to a key (Raffel et al. 2020, arXiv 1910.10683)."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    far = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact))
    return first + min(far, buckets - 1)


def position_bias(weights, stack, block, queries, keys, config):
    """(heads, queries, keys); T5 and mT5 have one table for a stack, in its first block, UMT5 one in every block."""
    table = weights.get(f"{stack}.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight")
    if table is None:
        table = weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    sizes = stack == "encoder", config.relative_attention_num_buckets, config.relative_attention_max_distance
    index = torch.tensor([[bucket(k - q, *sizes) for k in range(keys)] for q in range(queries)])
    return table[index].permute(2, 0, 1)


def attend(weights, prefixes, path, config, queries, states, bias, allowed):
    """Softmax over [prefix; tokens], bias zero on the prefix. allowed: (batch, 1, queries, keys), True to attend."""

    def heads(x, name):
        x = x @ weights[f"{path}.{name}.weight"].T
        return x.view(*x.shape[:2], config.num_heads, config.d_kv).transpose(1, 2)

    query, key, value = heads(queries, "q"), heads(states, "k"), heads(states, "v")
    scores = (query @ key.transpose(2, 3) + bias).masked_fill(~allowed, -math.inf)
    if path in prefixes:
        prefix_key, prefix_value = prefixes[path]
        scores = torch.cat([torch.einsum("bhqd,hpd->bhqp", query, prefix_key), scores], dim=-1)
        value = torch.cat([prefix_value.expand(len(value), -1, -1, -1), value], dim=2)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return mixed @ weights[f"{path}.o.weight"].T


def feed_forward(weights, path, x):
    x = layer_norm(x, weights[f"{path}.layer_norm.weight"])
    gate, linear, output = (weights[f"{path}.DenseReluDense.{name}.weight"] for name in ("wi_0", "wi_1", "wo"))
    return (gelu(x @ gate.T) * (x @ linear.T)) @ output.T


def logits(weights, config, prefixes, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, scale):
    """(batch, decoder positions, vocabulary) in the dtype of the weights.

    weights: state dict of the base model. prefixes: {module path: (keys, values)}, each (heads, tokens, d_kv).
    scale: factor on the decoder's output, which some of the models apply.
    """
    x = weights["shared.weight"][input_ids]
    source = attention_mask.bool()[:, None, None, :].expand(-1, 1, x.shape[1], -1)
    for block in range(config.num_layers):
        path = f"encoder.block.{block}.layer"
        normed = layer_norm(x, weights[f"{path}.0.layer_norm.weight"])
        bias = position_bias(weights, "encoder", block, x.shape[1], x.shape[1], config)
        x = x + attend(weights, prefixes, f"{path}.0.SelfAttention", config, normed, normed, bias, source)
        x = x + feed_forward(weights, f"{path}.1", x)
    encoded = layer_norm(x, weights["encoder.final_layer_norm.weight"])

    x = weights["shared.weight"][decoder_input_ids]
    length = x.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril() & decoder_attention_mask.bool()[:, None, None, :]
    source = attention_mask.bool()[:, None, None, :].expand(-1, 1, length, -1)
    for block in range(config.num_decoder_layers):
        path = f"decoder.block.{block}.layer"
        normed = layer_norm(x, weights[f"{path}.0.layer_norm.weight"])
        bias = position_bias(weights, "decoder", block, length, length, config)
        x = x + attend(weights, prefixes, f"{path}.0.SelfAttention", config, normed, normed, bias, causal)
        normed = layer_norm(x, weights[f"{path}.1.layer_norm.weight"])
        x = x + attend(weights, prefixes, f"{path}.1.EncDecAttention", config, normed, encoded, 0, source)
        x = x + feed_forward(weights, f"{path}.2", x)
    x = layer_norm(x, weights["decoder.final_layer_norm.weight"])
    return scale * x @ weights["lm_head.weight"].T
