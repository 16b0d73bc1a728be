"""Language models as routers: SFT, GRPO, BoPO and RLOO with TRL on the text faces of the environments."""
