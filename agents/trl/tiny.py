"""A language model of 0.5 million parameters, made on the spot: small enough to be trained on one CPU core.

A Qwen2 of two layers with a byte-pair vocabulary learned from the texts of the environment that it will act in. It
knows nothing before training, and afterwards that one environment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TAGS = ("think", "search", "information", "answer", "route", "state")
PAD, USER, ASSISTANT, END = SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
VOCABULARY = 1200
CONTEXT = 4096  # tokens
# What can become one token: a verdict in brackets, a name with digits, dots or hyphens inside (a choice), a run of
# common words (half of what is written are set phrases) with the count after them ("retries left 2, ", whose meaning
# then is one embedding), a capitalised word, a digit. Blanks before words stand alone, so that a name or a question is
# the same tokens wherever it is copied to.
PIECES = (
    r"\[[a-z]+: [0-9]\]"
    r"|[A-Za-z]+(?:[-.]\w+)+"
    r"|[A-Z]?[a-z']+(?![A-Za-z']|[-.]\w)(?: [a-z']+(?![A-Za-z']|[-.]\w))*(?: [0-9]{1,2}(?![0-9.])(?:, )?)?"
    r"|[A-Za-z]+| ?[0-9]|\n+| |[^A-Za-z0-9\n ] ?"
)
# What is written before stays as it is when messages are added: no blank is trimmed, nothing depends on what follows.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tiny_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer learned from `texts`; every tag of the protocols is one token, and none is special.

    Special tokens would vanish when a turn is decoded, and the environment has to see the tags.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    tags = [mark for tag in TAGS for mark in (f"<{tag}>", f"</{tag}>")]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(tags),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
    """A Qwen2 with random weights over the tokens of `tokenizer`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)
