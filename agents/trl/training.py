"""The loop that GRPO, BoPO and RLOO share: warm start, rollouts, checkpoints, evaluations, export.

Writes ``OUT/policy``, and on the way ``OUT/checkpoints``, ``OUT/samples`` (transcripts at each evaluation),
``OUT/metrics.jsonl`` and ``OUT/logs`` for TensorBoard. A run that is killed at any moment goes on from its last whole
checkpoint with ``--resume``. Checkpoints are of transformers and hold pickles: resume only your own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlroute.agents.trl.arguments import TrainingArguments
from rlroute.agents.trl.checks import ModelError, refuse_empty_texts, refuse_short_context
from rlroute.agents.trl.models import LanguageModel, load_model, lora_config
from rlroute.agents.trl.rollouts import Player, Rollouts, make_envs
from rlroute.agents.trl.trainer import Estimator, Shaping, plain_returns
from rlroute.agents.trl.vllm import refuse_no_vllm
from rlroute.report import write_text

CHECKPOINTS, STATE_FILE, RUN_FILE = "checkpoints", "trainer_state.json", "run.json"


@dataclass(frozen=True)
class RolloutArguments(TrainingArguments):
    """The knobs of training on episodes; the comment beside each is its help text."""

    groups: int = 16  # tasks of an update
    group_size: int = 8  # episodes of each task
    iterations: int = 1  # passes over the episodes of an update
    clip: float = 0.2  # largest change of a token's probability ratio that an update may profit from
    kl: float = 0.0  # weight of the KL divergence from the model of the start, which has to be a folder then
    entropy: float = 0.0  # weight of the entropy bonus
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm
    vllm: bool = False  # sample with vLLM beside the trainer on the same GPU; the model has to be a folder
    vllm_memory: float = 0.3  # share of the GPU's memory for it
    sft_steps: int = 400  # supervised updates on demonstrations before, unless the model is a text policy; 0: none
    sft_learning_rate: float = 2e-3  # of these; a pretrained model wants a hundredth of it


def train_on_episodes(
    name: str, arguments: RolloutArguments, estimator: Estimator, shaping: Shaping = plain_returns
) -> Path:
    """Trains for `arguments.steps` updates and returns the policy folder, ``OUT/policy``."""
    import torch
    from datasets import Dataset

    from rlroute.agents.trl.trainer import RouterTrainer
    from rlroute.agents.trl.watching import Watcher

    torch.set_num_threads(arguments.threads)
    out = Path(arguments.out)
    batch = arguments.groups * arguments.group_size
    if batch % arguments.micro_batch:
        raise ValueError(f"micro_batch={arguments.micro_batch}: expected a divisor of groups × group_size = {batch}")
    if arguments.vllm:
        refuse_no_vllm(arguments.model, Path(arguments.model).is_dir() or arguments.sft_steps > 0)
    start = warm_start(arguments)
    checkpoint = begin_run(out, name, arguments)
    language = model_to_train(start, lambda: vocabulary_texts(arguments), arguments)
    if arguments.kl and not Path(start).is_dir():
        raise ModelError("kl", f"{arguments.kl:g} with model {start!r}", "a folder as model: KL is from what it holds")
    envs = make_envs(arguments.env, arguments.env_arguments, language, batch)
    refuse_unplayable(envs[0], language, arguments.turn_tokens)
    player = Player(language, envs[0].stops, arguments.turn_tokens)
    trainer = RouterTrainer(
        rollouts=Rollouts(player, envs, arguments.group_size, arguments.seed),
        estimator=estimator,
        shaping=shaping,
        model=language.model,
        processing_class=language.tokenizer,
        args=grpo_config(arguments, out, min(player.context, envs[0].limits.context_tokens)),
        # A prompt is the number of its group, which fixes task, terms and draws; the texts are the environments'.
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(arguments.steps * arguments.groups)]}),
        peft_config=lora_config(arguments.lora),
    )
    watcher = Watcher(trainer, language, arguments, out, from_start=True)
    trainer.add_callback(watcher)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.perf_counter() - began
    trained = replace(language, model=trainer.accelerator.unwrap_model(trainer.model))
    return export(name, arguments, trained, envs[0], watcher.latest, timing(player, seconds, watcher.steps))


def warm_start(arguments: RolloutArguments) -> str:
    """The model to begin with: a text policy as it is, anything else after supervised updates in ``OUT/sft``."""
    from rlroute.agents.trl import sft
    from rlroute.policy import CARD_FILE

    if arguments.sft_steps == 0 or (Path(arguments.model) / CARD_FILE).is_file():
        return arguments.model
    done = Path(arguments.out) / "sft" / "policy"
    shared = {name: getattr(arguments, name) for name in TrainingArguments.__dataclass_fields__}
    changes = {"out": str(done.parent), "steps": arguments.sft_steps, "learning_rate": arguments.sft_learning_rate}
    lessons = sft.SFTArguments(**{**shared, **changes})
    if not (arguments.resume and done.is_dir()):
        sft.train(lessons)
    else:
        file = done.parent / RUN_FILE
        refuse_another_run(json.loads(file.read_text(encoding="utf-8")), told("SFT", lessons), file)
    return str(done)


def model_to_train(name: str, texts: Callable[[], Iterable[str]], arguments: TrainingArguments) -> LanguageModel:
    """The model of a name or folder. Weights that are trained themselves are float32: updates are smaller than what
    bfloat16 can tell apart. So are those that adapters are added to and taken from again, for the sake of vLLM. On a
    GPU the arithmetic is of bfloat16 all the same."""
    language = load_model(name, texts, arguments.seed)
    if arguments.lora == 0 or getattr(arguments, "vllm", False):
        language.model.float()
    return language


def vocabulary_texts(arguments: TrainingArguments) -> list[str]:
    """Transcripts that the vocabulary of the tiny model is learned from."""
    from rlroute.agents.trl.demonstrations import demonstrations, texts_of

    return texts_of(demonstrations(arguments.env, arguments.env_arguments, 256, arguments.seed))


def refuse_unplayable(env: Any, language: LanguageModel, turn_tokens: int) -> None:
    """The checks of a model and an environment against each other."""
    refuse_empty_texts(env.dynamics)
    prompt, _ = env.reset(seed=0)
    refuse_short_context(language.model, len(language.prompt_ids(prompt)), turn_tokens, env.limits.reply_tokens)


def grpo_config(arguments: RolloutArguments, out: Path, context_tokens: int) -> Any:
    """TRL's configuration of a run whose texts have at most so many tokens."""
    from trl import GRPOConfig

    batch = arguments.groups * arguments.group_size
    accumulation = batch // arguments.micro_batch
    return GRPOConfig(
        **shared_config(arguments, out),
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        num_generations=arguments.group_size,
        num_iterations=arguments.iterations,
        epsilon=arguments.clip,
        beta=arguments.kl,
        entropy_coef=arguments.entropy,
        max_grad_norm=arguments.max_grad_norm,
        temperature=1.0,
        shuffle_dataset=False,
        use_vllm=arguments.vllm,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=arguments.vllm_memory,
        vllm_max_model_length=context_tokens,
        vllm_importance_sampling_mode="token_truncate",
    )


def shared_config(arguments: TrainingArguments, out: Path) -> dict[str, Any]:
    """What the configurations of all of TRL's trainers have in common."""
    import torch

    cuda = torch.cuda.is_available()
    reports = [name for name in ("tensorboard", "trackio") if getattr(arguments, name)]
    return {
        "output_dir": str(out / CHECKPOINTS),
        "max_steps": arguments.steps,
        "learning_rate": arguments.learning_rate,
        "lr_scheduler_type": "linear",
        "per_device_train_batch_size": arguments.micro_batch,
        "save_strategy": "steps",
        "save_steps": arguments.checkpoint_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": reports or "none",
        "bf16": cuda,
        "use_cpu": not cuda,
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "seed": arguments.seed,
        "disable_tqdm": arguments.quiet,
        "dataloader_pin_memory": cuda,
    }


def begin_run(out: Path, name: str, arguments: TrainingArguments) -> Path | None:
    """Clears an older run, or with `resume` returns its last whole checkpoint.

    Raises ValueError where what is to be resumed was another run.
    """
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(out / "logs")  # the only way to tell transformers
    run = told(name, arguments)
    checkpoint = latest_checkpoint(out / CHECKPOINTS) if arguments.resume else None
    if checkpoint is None:
        for old in (CHECKPOINTS, "samples", "logs"):
            shutil.rmtree(out / old, ignore_errors=True)
        (out / "metrics.jsonl").unlink(missing_ok=True)
    else:
        before = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
        refuse_another_run(before, run, out / RUN_FILE)
        forget_after(out / "metrics.jsonl", int(checkpoint.name.removeprefix("checkpoint-")))
    write_text(out / RUN_FILE, json.dumps(run, indent=1) + "\n")
    return checkpoint


def told(name: str, arguments: TrainingArguments) -> dict[str, Any]:
    """A run as plain data: its algorithm, and all arguments that say what comes of it; logs by what they hold."""
    given = {key: value for key, value in asdict(arguments).items() if key not in ("resume", "quiet", "vllm_memory")}
    run = {"algorithm": name, "arguments": given}
    plain: dict[str, Any] = json.loads(json.dumps(run, default=lambda item: str(getattr(item, "content_hash", item))))
    return plain


def forget_after(file: Path, step: int) -> None:
    """Drop the lines of updates after `step`: they will be made again. A line that a kill cut short goes too."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            continue
        if told["step"] <= step:
            kept.append(line + "\n")
    write_text(file, "".join(kept))


def refuse_another_run(before: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> None:
    """A ValueError for the first argument in which a run differs from the one it would go on with.

    An argument that there was not yet when that began has its default.
    """
    defaults = {field.name: field.default for field in fields(RolloutArguments)}
    if before["algorithm"] != now["algorithm"]:
        raise ValueError(f"{file}: found a run of {before['algorithm']}, expected {now['algorithm']} to resume")
    for key, value in now["arguments"].items():
        found = before["arguments"].get(key, defaults.get(key))
        if found != value:
            raise ValueError(f"{file}: found {key}={found!r}, expected {value!r} to resume")


def latest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end; the trainer's state is what is written last."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            continue
        whole.append(path)
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def timing(player: Player, seconds: float, steps: int) -> dict[str, float]:
    """Seconds a step, tokens a second, peak memory, and the share of a step that is spent outside the model."""
    import torch

    clock = player.clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "seconds_a_step": seconds / max(1, steps),
        "sampled_tokens_per_s": clock.sampled_tokens / max(1e-9, clock.total),
        "rollout_share": clock.total / max(1e-9, seconds),
        "environment_share": clock.environment / max(1e-9, seconds),
        "peak_memory_gb": peak / 1e9,
        "peak_device_memory_gb": device / 1e9,
    }


def export(
    name: str,
    arguments: TrainingArguments,
    language: LanguageModel,
    env: Any,
    metrics: Mapping[str, float],
    speed: Mapping[str, float],
) -> Path:
    """Writes ``OUT/policy``."""
    import trl

    from rlroute.agents.trl.policy import save_text_policy, text_card

    given = {key: value for key, value in asdict(arguments).items() if key != "env_arguments"}
    weights = language.model.named_parameters()
    size = int(sum(p.numel() for name, p in weights if "lora_" not in name))  # adapters become part of the others
    card = {
        **text_card(env, arguments.env, arguments.turn_tokens),
        "env_arguments": plain_arguments(arguments.env_arguments),
        "model": {"name": arguments.model, "parameters": size, "kind": language.model.config.model_type},
        "training": {"trainer": f"trl {trl.__version__}", "algorithm": name, "arguments": given},
        "metrics": {key: float(np.round(value, 6)) for key, value in metrics.items()},
        "speed": {key: float(np.round(value, 4)) for key, value in speed.items()},
    }
    return save_text_policy(Path(arguments.out) / "policy", language, card)


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an environment as a card can hold them: a log by its name; the prompt has a file of its own."""
    return {key: getattr(value, "name", value) for key, value in arguments.items() if key not in ("tokens", "prompt")}
