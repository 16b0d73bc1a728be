"""Routers trained with RLlib on columns: `train` of `ppo`, `grpo` or `rloo` makes a policy folder of an environment."""
