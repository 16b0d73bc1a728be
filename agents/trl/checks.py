"""What is refused before training begins: models and logs that could not learn anything from each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOOK_AT = 64  # prompts and tasks that are looked at


class ModelError(ValueError):
    """Something that cannot be trained on: what, what was found and what was expected."""

    def __init__(self, what: str, found: str, expected: str) -> None:
        super().__init__(what, found, expected)
        self.what, self.found, self.expected = what, found, expected

    def __str__(self) -> str:
        return f"{self.what}: found {self.found}, expected {self.expected}"


def refuse_no_causal_lm(folder: Path) -> None:
    """A ModelError where a folder holds no causal language model; only its ``config.json`` is read."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            f"model {str(folder)!r}",
            "no config.json" if folder.is_dir() else "no such folder",
            "'tiny', 'smollm2' or the folder of a causal language model as transformers' save_pretrained writes it",
        )
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(str(config), f"no JSON ({error})", "the configuration of a causal language model") from error
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind, classes = content.get("model_type"), content.get("architectures") or []
    causal = [name for name in classes if name.endswith(("ForCausalLM", "LMHeadModel"))]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (classes and not causal):
        raise ModelError(
            str(config),
            f"model_type {kind!r} with architectures {classes}",
            "a causal language model, whose architecture is named …ForCausalLM",
        )


def refuse_no_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """A ModelError where prompts could not be told from answers."""
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"tokenizer of model {name!r}",
            "no chat template",
            "one: take the -Instruct variant of the model, or put a chat_template into its tokenizer_config.json",
        )


def refuse_short_context(model: PreTrainedModel, prompt_tokens: int, turn_tokens: int, reply_tokens: int) -> None:
    """A ModelError where a prompt, one turn, the reply to it and a last turn do not fit into the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    needed = prompt_tokens + 2 * turn_tokens + reply_tokens
    if context is not None and context < needed:
        raise ModelError(
            "context of the model",
            f"{context} tokens",
            f"at least {needed} for one round (prompt {prompt_tokens}, two turns of {turn_tokens}, reply "
            f"{reply_tokens}): take a model with a longer context, a shorter prompt by env_arguments "
            '{"prompt": "brief"}, or a smaller turn_tokens',
        )


def refuse_empty_texts(dynamics: Any) -> None:
    """A ModelError where the first tasks of a log have no text to decide by."""
    if not hasattr(dynamics.log, "state_text"):
        return  # a family that is told by its structure
    for row in dynamics.roots[:LOOK_AT]:
        if not dynamics.log.state_text(int(row)).strip():
            raise ModelError(
                f"log {dynamics.log.name!r}, column text of state {str(dynamics.arrays.state_ids[row])!r}",
                "an empty text",
                "the question or task in words: a language model has nothing else to decide by; record texts, or "
                "train a numeric router with agents/rllib",
            )
