"""Routers trained with RLlib's PPO: `ppo.train` turns an environment id into a policy folder."""
