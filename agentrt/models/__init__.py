"""Adapters: models that run elsewhere (`litellm`) and in this process (`local`)."""
