"""Teaches a language model the protocol and a first policy: ``python agents/trl/sft.py --env ID --out OUT``.

Transcripts of reference policies are imitated with TRL's SFTTrainer. The loss is on what a policy writes alone:
prompts and replies of the environment are read but not learned. Prompt, turns and replies are tokenised one by one,
exactly as they will be in rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlroute.agents.trl.arguments import TrainingArguments, parse
from rlroute.agents.trl.models import LanguageModel, lora_config
from rlroute.agents.trl.rollouts import Player, make_envs
from rlroute.agents.trl.training import begin_run, export, model_to_train, refuse_unplayable, shared_config, timing


@dataclass(frozen=True)
class SFTArguments(TrainingArguments):
    """The knobs of supervised training; the comment beside each is its help text."""

    learning_rate: float = 2e-3  # AdamW's step size at the start; it falls linearly to 0
    steps: int = 400  # updates
    demonstrations: int = 2000  # transcripts to learn from
    copy_steps: int = 500  # lessons in copying before, at most; for the tiny model alone


def train(arguments: SFTArguments) -> Path:
    """Trains for `arguments.steps` updates and returns the policy folder, ``OUT/policy``."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from rlroute.agents.trl.demonstrations import demonstrations, taught_by, texts_of
    from rlroute.agents.trl.watching import Watcher

    torch.set_num_threads(arguments.threads)
    out = Path(arguments.out)
    taught_by(arguments.teacher, arguments.env)  # refuses before an older run is cleared
    checkpoint = begin_run(out, "SFT", arguments)
    shown = demonstrations(
        arguments.env,
        arguments.env_arguments,
        arguments.demonstrations,
        arguments.seed,
        arguments.short_queries,
        arguments.teacher,
    )
    language = model_to_train(arguments.model, lambda: texts_of(shown), arguments)
    env = make_envs(arguments.env, arguments.env_arguments, language, 1)[0]
    refuse_unplayable(env, language, arguments.turn_tokens)
    if language.name == "tiny" and checkpoint is None and arguments.copy_steps:
        from rlroute.agents.trl.copying import teach_copying

        special = set(language.tokenizer.all_special_ids)
        teach_copying(
            language.model, sorted(set(range(len(language.tokenizer))) - special), arguments.copy_steps, arguments.seed
        )
    rows = [tokens_and_labels(language, transcript.prompt, transcript.turns) for transcript in shown]
    trainer = SFTTrainer(
        model=language.model,
        processing_class=language.tokenizer,
        args=SFTConfig(**shared_config(arguments, out), max_length=None, packing=False, dataset_num_proc=None),
        train_dataset=Dataset.from_list(rows),
        peft_config=lora_config(arguments.lora),
    )
    watcher = Watcher(trainer, language, arguments, out, from_start=False)
    trainer.add_callback(watcher)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.perf_counter() - began
    player = watcher.player or Player(language, env.stops, arguments.turn_tokens)
    trained = replace(language, model=trainer.accelerator.unwrap_model(trainer.model))
    return export("SFT", arguments, trained, env, watcher.latest, timing(player, seconds, watcher.steps))


def tokens_and_labels(language: LanguageModel, prompt: str, turns: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """Tokens of a transcript, and as labels those among them that the policy wrote (−100: not learned)."""
    ids = language.prompt_ids(prompt)
    labels = [-100] * len(ids)
    for text, reply in turns:
        written, replied = language.text_ids(text), language.text_ids(reply)
        ids += written + replied
        labels += written + [-100] * len(replied)
    return {"input_ids": ids, "labels": labels}


if __name__ == "__main__":
    print(train(parse(SFTArguments, (__doc__ or "").split("\n")[0])))
