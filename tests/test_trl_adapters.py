"""Adapters of a language model: merged for sampling and undone, and what of them a saved policy holds."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")

import torch
from peft import get_peft_model
from safetensors.torch import load_file

from rlroute.agents.trl.models import LanguageModel, load_model, lora_config, merged
from rlroute.agents.trl.policy import save_text_policy

TEXTS = [f"Question {i}? Ask the large model, then say what it said." for i in range(40)]
IDS = torch.tensor([[5, 9, 11, 3, 8, 4]])


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny", lambda: TEXTS)


def adapted(language: LanguageModel, size: float, dtype: torch.dtype = torch.float32) -> Any:
    """The model with adapters that say something; fresh ones add up to zero."""
    model = get_peft_model(deepcopy(language.model).to(dtype), lora_config(4)).eval()
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * size)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    told: torch.Tensor = model(IDS).logits
    return told


def test_merged_adapters_say_the_same_and_come_apart_bit_for_bit(tiny: LanguageModel) -> None:
    model = adapted(tiny, 0.05)
    before, apart = deepcopy(model.state_dict()), logits(model)
    with merged(model) as bare:
        together, weights = logits(bare), model.state_dict()
        assert any(not torch.equal(weights[name], before[name]) for name in before)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)
    assert (apart - logits(deepcopy(tiny.model).eval())).abs().max() > 0.01
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(model), apart)


def test_a_merge_that_fails_halfway_is_undone(tiny: LanguageModel) -> None:
    model = adapted(tiny, 0.05)
    last = [weight for name, weight in model.named_parameters() if "lora_B" in name][-1]
    last.data.fill_(torch.nan)
    before = deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="NaNs"), merged(model):
        raise AssertionError("a merge with NaN has to fail")
    after = model.state_dict()
    assert all(torch.equal(after[name].nan_to_num(), before[name].nan_to_num()) for name in before)


def test_adapters_on_bfloat16_stay_apart(tiny: LanguageModel) -> None:
    model = adapted(tiny, 0.05, torch.bfloat16)
    before = deepcopy(model.state_dict())
    with merged(model) as bare:
        assert bare is model
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_model_without_adapters_is_left_alone(tiny: LanguageModel) -> None:
    with merged(tiny.model) as bare:
        assert bare is tiny.model


def test_a_saved_policy_keeps_adapters_smaller_than_bfloat16_tells_apart(tiny: LanguageModel, tmp_path: Path) -> None:
    model = adapted(tiny, 1e-5, torch.bfloat16)
    name = "model.layers.0.self_attn.q_proj"
    layer = model.get_submodule(f"base_model.model.{name}")
    base, added = layer.get_base_layer().weight.data.float(), layer.get_delta_weight("default").float()
    assert added.abs().max() < base.abs().max() * 2**-10
    language = LanguageModel(model, tiny.tokenizer, "tiny")
    save_text_policy(tmp_path / "policy", language, {"prompt": "$question"})
    saved = load_file(tmp_path / "policy" / "model.safetensors")[f"{name}.weight"]
    torch.testing.assert_close(saved - base, added, atol=1e-7, rtol=0.02)
