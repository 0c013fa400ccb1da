"""Prefix tuning as published, as a PEFT method: learned keys and values in front of every attention module.

Li and Liang 2021 (arXiv 2101.00190) let every attention of a frozen encoder-decoder look at a few learned positions
besides its own tokens. In T5, PEFT's own prefix tuning reaches only the decoder's self-attention. This module reaches
all attention of T5, mT5, UMT5 and models built like them. Importing it registers the peft type `KV_PREFIX`:

    config = KVPrefixConfig(num_virtual_tokens=5, task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(t5, config)

A `KVPrefixAttention` wraps each attention module and gives it the prefix as one more keyword argument. The wrapped
module hands unknown keywords to its attention function. This project registers one that puts the prefix in front of
keys and values. By then the projections, the position bias and the key-value cache are done. So no model's forward pass
is copied here, and the cache never has a prefix.
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftqa.errors import UserError

# The attention modules of each target, by the path that they have in T5, mT5 and UMT5.
TARGETS = {
    "encoder": r"encoder\.block\.\d+\.layer\.\d+\.SelfAttention",
    "decoder": r"decoder\.block\.\d+\.layer\.\d+\.SelfAttention",
    "cross": r"decoder\.block\.\d+\.layer\.\d+\.EncDecAttention",
}

Prefix = tuple[torch.Tensor, torch.Tensor]  # keys and values, (heads, prefix, d_kv) each


def with_prefix(
    attention: Callable,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    position_bias: torch.Tensor,
    kv_prefix: Prefix | None = None,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run an attention function of transformers over [prefix; tokens].

    query, key, value: (batch, heads, positions, d_kv). attention_mask: None or bool (batch, 1, queries, keys).
    position_bias: (1, heads, queries, keys). Result: that of `attention`.

    The rule for a prefix, here and in fast/t5.py: its position bias is zero (as in UnifiedSKG, Xie et al. 2022, arXiv
    2201.05966), it is never masked, and the bias and the mask of the tokens stay as they are.
    """
    if kv_prefix is not None:
        prefix_key, prefix_value = (p.to(key.dtype).expand(key.shape[0], -1, -1, -1) for p in kv_prefix)
        length = prefix_key.shape[2]
        key, value = torch.cat([prefix_key, key], dim=2), torch.cat([prefix_value, value], dim=2)
        position_bias = pad(position_bias, (length, 0))
        if attention_mask is not None:
            attention_mask = pad(attention_mask, (length, 0), value=True)
    return attention(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)


SUFFIX = "_kv_prefix"
SUPPORTED: list[str] = []


def explicit_mask(*args, **kwargs) -> torch.Tensor:
    """sdpa's mask, always made.

    For a purely causal mask transformers passes None, and sdpa then hides keys by their position. A prefix shifts the
    positions, so that sdpa would hide the wrong keys.
    """
    return sdpa_mask(*args, **kwargs | {"allow_is_causal_skip": False})


def support_attention(name: str, attention: Callable) -> None:
    """Let models with the attention implementation `name` have a prefix: registers NAME_kv_prefix with transformers.

    attention: the function of this name in `AttentionInterface`; it takes sdpa's mask.
    """
    AttentionInterface.register(name + SUFFIX, partial(with_prefix, attention))
    AttentionMaskInterface.register(name + SUFFIX, explicit_mask)
    SUPPORTED.append(name)


support_attention("sdpa", sdpa_attention_forward)


class PrefixTrunk(nn.Module):
    """The part of Li and Liang's MLP that all modules of one target share. It returns (tokens, width)."""

    def __init__(self, num_virtual_tokens: int, d_model: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(num_virtual_tokens, d_model))
        self.hidden = nn.Linear(d_model, width)

    def forward(self) -> torch.Tensor:
        return torch.tanh(self.hidden(self.embedding))


class PrefixMLP(nn.Module):
    """The MLP of one attention module: the shared trunk and an output layer of its own. It returns the prefix."""

    def __init__(self, trunk: PrefixTrunk, num_heads: int, d_kv: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.shape = (-1, 2, num_heads, d_kv)
        self.output = nn.Linear(trunk.hidden.out_features, 2 * num_heads * d_kv)

    def forward(self) -> Prefix:
        # (tokens, 2 * heads * d_kv) -> (2, heads, tokens, d_kv) -> keys, values
        return self.output(self.trunk()).view(self.shape).permute(1, 2, 0, 3).unbind()

    def fit(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Fit the output layer by least squares, so that the MLP gives these keys and values.

        The fit is exact if the trunk's rows are independent, which is possible only if width >= tokens.
        """
        wanted = torch.stack([key, value]).permute(2, 0, 1, 3).flatten(1)
        weight = torch.linalg.pinv(self.trunk().double()) @ wanted.to(self.output.weight.device, torch.float64)
        self.output.weight.copy_(weight.T)
        self.output.bias.zero_()


class KVPrefixAttention(nn.Module, BaseTunerLayer):
    """An attention module with, for each adapter, a learned prefix of keys and values.

    `kv_prefix_key` and `kv_prefix_value` hold them by adapter name, (heads, tokens, d_kv) each. While an adapter is
    trained with a reparametrization, `kv_prefix_mlp` holds the network that makes them instead. If several adapters are
    active, their prefixes are concatenated.
    """

    adapter_layer_names = ("kv_prefix_key", "kv_prefix_value", "kv_prefix_mlp")

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.kv_prefix_key = nn.ParameterDict()
        self.kv_prefix_value = nn.ParameterDict()
        self.kv_prefix_mlp = nn.ModuleDict()

    def add_prefix(self, adapter_name: str, num_virtual_tokens: int, trunk: PrefixTrunk | None = None) -> None:
        """Make room for an adapter's prefix, on the module's device and in its dtype, but at least float32."""
        base, weight = self.base_layer, self.base_layer.k.weight
        place = {"device": weight.device, "dtype": torch.promote_types(weight.dtype, torch.float32)}
        if trunk is not None:
            self.kv_prefix_mlp[adapter_name] = PrefixMLP(trunk, base.n_heads, base.key_value_proj_dim).to(**place)
            return
        shape = (base.n_heads, num_virtual_tokens, base.key_value_proj_dim)
        self.kv_prefix_key[adapter_name] = nn.Parameter(torch.zeros(shape, **place))
        self.kv_prefix_value[adapter_name] = nn.Parameter(torch.zeros(shape, **place))

    def prefix(self, adapter_name: str) -> Prefix | None:
        """Keys and values of one adapter, (heads, tokens, d_kv) each; None if this module does not have any."""
        if adapter_name in self.kv_prefix_mlp:
            return self.kv_prefix_mlp[adapter_name]()
        if adapter_name in self.kv_prefix_key:
            return self.kv_prefix_key[adapter_name], self.kv_prefix_value[adapter_name]
        return None

    @torch.no_grad()
    def set_prefix(self, adapter_name: str, key: torch.Tensor, value: torch.Tensor) -> None:
        """Give an adapter these keys and values, (heads, tokens, d_kv) each."""
        if adapter_name in self.kv_prefix_mlp:
            self.kv_prefix_mlp[adapter_name].fit(key, value)
        else:
            self.kv_prefix_key[adapter_name].copy_(key)
            self.kv_prefix_value[adapter_name].copy_(value)

    def forward(self, *args, **kwargs) -> tuple:
        prefixes = [] if self.disable_adapters else [self.prefix(name) for name in self.active_adapters]
        prefixes = [prefix for prefix in prefixes if prefix is not None]
        if not prefixes:
            return self.base_layer(*args, **kwargs)
        if not self.base_layer.config._attn_implementation.endswith(SUFFIX):
            raise UserError(
                "The attention implementation was changed after the prefix was added, which would drop the prefix. "
                f"Choose it earlier, or set one of {', '.join(name + SUFFIX for name in SUPPORTED)}."
            )
        kv_prefix = prefixes[0] if len(prefixes) == 1 else [torch.cat(p, dim=1) for p in zip(*prefixes, strict=True)]
        return self.base_layer(*args, kv_prefix=kv_prefix, **kwargs)


@torch.no_grad()
def text_prefixes(
    model: PreTrainedModel, token_ids: Sequence[int], num_virtual_tokens: int
) -> dict[str, list[torch.Tensor]]:
    """The keys and values that the frozen model computes for a text: {module path: [keys, values]}.

    Keys and values are (heads, num_virtual_tokens, d_kv) each. The encoder and the decoder both read the text, which is
    repeated until it is as long as the prefix. Its first `num_virtual_tokens` positions are taken.
    """
    text = [list(token_ids) * math.ceil(num_virtual_tokens / len(token_ids))]
    text = torch.tensor(text, device=model.device)
    layers = {path: m.base_layer for path, m in model.named_modules() if isinstance(m, KVPrefixAttention)}
    states = {}

    def record_input(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        # Self-attention reads args[0]. Cross-attention reads the encoder's states, which UMT5 names differently.
        source = kwargs.get("key_value_states", kwargs.get("encoder_hidden_states"))
        states[layer] = (args[0] if source is None else source)[:, :num_virtual_tokens]
        return args, {name: value for name, value in kwargs.items() if name != "kv_prefix"}

    training = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        for layer in layers.values():
            stack.enter_context(layer.register_forward_pre_hook(record_input, with_kwargs=True))
        model.eval()(input_ids=text, decoder_input_ids=text, use_cache=False)
    for module, mode in training.items():
        module.training = mode

    def project_heads(layer: nn.Module, projection: nn.Linear) -> torch.Tensor:
        return projection(states[layer]).view(-1, layer.n_heads, layer.key_value_proj_dim).transpose(0, 1)

    return {path: [project_heads(layer, layer.k), project_heads(layer, layer.v)] for path, layer in layers.items()}


class PeftType(StrEnum):
    """The method's name. transformers reads `peft_type.value`. Dictionaries and JSON see a plain string."""

    KV_PREFIX = "KV_PREFIX"


@dataclass
class KVPrefixConfig(PeftConfig):
    """What a key-value prefix consists of and how it starts.

    num_virtual_tokens: length of the prefix in every module.
    target: any of "encoder" and "decoder" (their self-attention) and "cross" (attention over the encoder's output).
    init: "random", normal with standard deviation `init_scale`; or "text", the keys and values that the text with
        token ids `init_token_ids` has in the frozen model (`text_prefixes`).
    reparametrization: None, or the width of Li and Liang's MLP (one trunk per target), which makes the prefix in
        training. With init "text", training starts from the same prefix as without the MLP. With "random" the numbers
        differ, because the MLP's own weights are drawn first. Only the keys and values that it makes are saved.
    """

    num_virtual_tokens: int = 5
    target: list[str] = field(default_factory=lambda: list(TARGETS))
    init: str = "random"
    init_scale: float = 0.02
    init_token_ids: list[int] | None = None
    reparametrization: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.KV_PREFIX
        self.target = list(self.target)
        if not self.target or len(set(self.target)) < len(self.target) or set(self.target) - set(TARGETS):
            raise UserError(f"target is {self.target}; it must be one or more of {', '.join(TARGETS)}, each once.")
        if self.num_virtual_tokens < 1:
            raise UserError(f"num_virtual_tokens is {self.num_virtual_tokens}; it must be 1 or more.")
        if self.init not in ("random", "text"):
            raise UserError(f"init is {self.init!r}; it must be random or text.")
        if self.init == "text" and not self.init_token_ids:
            raise UserError("init is text, but init_token_ids is empty; give the token ids of the text.")
        width, tokens = self.reparametrization, self.num_virtual_tokens
        if width is not None and width < tokens:
            raise UserError(f"reparametrization is {width}; it must be at least the length of the prefix, {tokens}.")

    @property
    def target_modules(self) -> str:
        """The pattern by which PEFT finds the modules."""
        return rf"(?:.*\.)?(?:{'|'.join(TARGETS[name] for name in self.target)})"

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        # Plain keys and values are saved, so that loading them does not need an MLP.
        PeftConfig.save_pretrained(replace(self, reparametrization=None), save_directory, **kwargs)


class KVPrefixModel(BaseTuner):
    """Puts a `KVPrefixAttention` around the attention modules of a T5, mT5 or UMT5; made by `get_peft_model`."""

    prefix = "kv_prefix_"
    tuner_layer_cls = KVPrefixAttention

    def _prepare_model(self, peft_config, model):
        for target in peft_config.target:
            if not any(re.fullmatch(rf"(?:.*\.)?{TARGETS[target]}", path) for path, _ in model.named_modules()):
                wanted = TARGETS[target].replace(r"\.", ".").replace(r"\d+", "N")
                raise UserError(
                    f"{type(model).__name__} lacks attention modules for the target {target}; it needs {wanted}, as in "
                    "T5, mT5 and UMT5."
                )
        if model.config._attn_implementation in SUPPORTED:
            model.set_attn_implementation(model.config._attn_implementation + SUFFIX)
        if not model.config._attn_implementation.endswith(SUFFIX):
            raise UserError(
                f"The attention implementation of {type(model).__name__} is {model.config._attn_implementation}; a "
                f"prefix needs {' or '.join(SUPPORTED)}."
            )

    def inject_adapter(self, model, adapter_name, *args, **kwargs):
        self._trunks = {}  # {target's name: PrefixTrunk}, filled by _create_and_replace for this adapter
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        config = self.peft_config[adapter_name]
        if config.inference_mode:
            return  # its values are about to be loaded
        if config.init == "text":
            prefixes = text_prefixes(model, config.init_token_ids, config.num_virtual_tokens)
        for path, layer in model.named_modules():
            if not isinstance(layer, KVPrefixAttention) or (prefix := layer.prefix(adapter_name)) is None:
                continue
            if config.init == "text":
                key, value = prefixes[path]
            else:  # in float32 on the CPU, so that a seed gives the same prefix on every device and in every dtype
                key, value = (config.init_scale * torch.randn(prefix[0].shape) for _ in range(2))
            layer.set_prefix(adapter_name, key, value)

    def _create_and_replace(self, peft_config, adapter_name, target, target_name, parent, current_key):
        layer = target if isinstance(target, KVPrefixAttention) else KVPrefixAttention(target)
        setattr(parent, target_name, layer)
        trunk = None
        if peft_config.reparametrization is not None:
            kind = next(name for name in peft_config.target if re.search(TARGETS[name], current_key))
            if kind not in self._trunks:
                size = peft_config.num_virtual_tokens, layer.base_layer.d_model, peft_config.reparametrization
                self._trunks[kind] = PrefixTrunk(*size)
            trunk = self._trunks[kind]
        layer.add_prefix(adapter_name, peft_config.num_virtual_tokens, trunk)

    # PEFT's own also copies weight and bias, which an attention module does not have.
    def _replace_module(self, parent, child_name, new_module, child):
        setattr(parent, child_name, new_module)

    @classmethod
    def _get_adapter_state_dict(cls, model, config, adapter_name, state_dict, unwanted_adapter_names):
        if config.reparametrization is None:
            return super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        plain = {}
        for path, layer in model.named_modules():
            if isinstance(layer, KVPrefixAttention) and adapter_name in layer.kv_prefix_mlp:
                key, value = layer.prefix(adapter_name)
                plain[f"{path}.kv_prefix_key.{adapter_name}"] = key.detach().contiguous()
                plain[f"{path}.kv_prefix_value.{adapter_name}"] = value.detach().contiguous()
        return plain

    @classmethod
    def _remap_adapter_state_dict_for_load(cls, model, config, adapter_name, state_dict):
        if config.reparametrization is not None:  # PEFT would silently ignore every key
            raise UserError(
                f"Saved keys and values cannot be loaded into adapter {adapter_name}, because it is in training with a "
                "reparametrization; load them as a new adapter."
            )
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)

    def _check_merge_allowed(self):
        raise UserError("A key-value prefix cannot be merged, because it adds positions and does not change weights.")

    @contextmanager
    def _enable_peft_forward_hooks(self, *args, adapter_names=None, **kwargs):
        # PEFT calls this for a batch with an adapter per row. PEFT's own version ignores `adapter_names`.
        if adapter_names is not None:
            raise UserError("adapter_names is not possible with KV_PREFIX; choose one adapter by set_adapter(NAME).")
        yield

    def unload(self):
        model = super().unload()
        model.set_attn_implementation(model.config._attn_implementation.removesuffix(SUFFIX))
        return model


PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.KV_PREFIX] = KVPrefixConfig
PEFT_TYPE_TO_TUNER_MAPPING[PeftType.KV_PREFIX] = KVPrefixModel
PEFT_TYPE_TO_PREFIX_MAPPING[PeftType.KV_PREFIX] = KVPrefixModel.prefix
