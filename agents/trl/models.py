"""The language models that can be trained: one made on the spot, one from a package, any from a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.agents.trl.checks import (
    ModelError,
    refuse_no_causal_lm,
    refuse_no_chat_template,
)

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@lru_cache(maxsize=2**14)
def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Tokens of a text, kept: the episodes of a group hear and say much alike, and a tokenizer takes long to call."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with the tokenizer that it reads through."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt as a user's message, up to where the answer begins."""
        message = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return self.text_ids(str(text))

    def text_ids(self, text: str) -> list[int]:
        """Tokens of a text that continues what came before."""
        return list(token_ids(self.tokenizer, text))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of tokens, without those that only mark beginnings and ends."""
        kept = list(ids)
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class TokenizerTokens:
    """How a text environment counts tokens when a tokenizer is at hand (see `rlroute.envs.text.Tokens`)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(token_ids(self.tokenizer, text))

    def head(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text."""
        if len(text) <= limit:  # no token is shorter than a character
            return text
        starts = self._offsets(text)
        return text if len(starts) <= limit else text[: starts[limit][0]]

    def tail(self, text: str, limit: int) -> str:
        """The last `limit` tokens of a text."""
        if len(text) <= limit:
            return text
        starts = self._offsets(text)
        return text if len(starts) <= limit else text[starts[-limit][0] :]

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """First and last character of every token."""
        return list(self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])


def load_model(name: str, texts: Callable[[], Iterable[str]], seed: int = 0) -> LanguageModel:
    """The model of a name or folder; `texts` gives what the vocabulary of "tiny" is learned from.

    On a GPU a model from a folder keeps the precision that it was saved in; everywhere else it is float32.
    """
    if name == "tiny":
        from rlroute.agents.trl.tiny import tiny_model, tiny_tokenizer

        tokenizer: Any = tiny_tokenizer(texts())
        return LanguageModel(tiny_model(tokenizer, seed), tokenizer, name)
    if name == "smollm2":
        from rlroute.agents.trl.smollm import smollm2

        model, tokenizer = smollm2()
        refuse_no_chat_template(tokenizer, name)
        return LanguageModel(_on_device(model), _with_pad(tokenizer), name)
    return load_folder(Path(name))


def load_folder(folder: Path) -> LanguageModel:
    """The model in a folder that transformers reads; ModelError where it is no causal language model for chats."""
    refuse_no_causal_lm(folder)
    import torch
    from transformers import AutoModelForCausalLM

    dtype = "auto" if torch.cuda.is_available() else torch.float32
    tokenizer = _read_tokenizer(folder)
    refuse_no_chat_template(tokenizer, str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return LanguageModel(_on_device(model), _with_pad(tokenizer), str(folder))


def lora_config(rank: int) -> LoraConfig | None:
    """Adapters of this rank on all linear layers; None for rank 0."""
    if rank == 0:
        return None
    if rank < 0:
        raise ModelError("lora", str(rank), "0 for none, or a rank of at least 1")
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


@contextmanager
def merged(model: Any) -> Iterator[Any]:
    """The model to sample from, with adapters as part of its weights: one product a layer in place of three.

    It is the one inside of what trainers wrap, so nothing is cast on the way either. Afterwards the weights are, bit
    for bit, those of before. Adapters on weights of bfloat16 stay apart, since the sum would be rounded.
    """
    import torch

    layers: list[Any] = []
    if hasattr(model, "merge_adapter"):
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    kept = [layer.get_base_layer().weight.data for layer in layers]
    if any(weight.dtype != torch.float32 for weight in kept):
        layers, kept = [], []
    try:
        for layer in layers:
            layer.merge(safe_merge=True)  # into a copy
        yield model.get_base_model() if layers else model
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            if layer.merged:  # not all are where merging failed
                layer.unmerge()
                layer.get_base_layer().weight.data = weight


def _read_tokenizer(folder: Path) -> Any:
    """The tokenizer as it was saved.

    `AutoTokenizer` goes by the type of the model and would replace a tokenizer of one's own by that of the family.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = folder / "tokenizer_config.json"
    saved = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    own = saved.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if own else AutoTokenizer).from_pretrained(folder)


def _on_device(model: Any) -> Any:
    import torch

    return model.to("cuda") if torch.cuda.is_available() else model


def _with_pad(tokenizer: Any) -> Any:
    """Batches need a token to fill rows up with; attention never sees it."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
