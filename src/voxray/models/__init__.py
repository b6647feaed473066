"""Model folders: recipe.yaml, weights.safetensors, MODEL_CARD.md."""

from voxray.models.folder import LoadedModel, ModelInfo, list_models, load_model, save_model

__all__ = ["LoadedModel", "ModelInfo", "list_models", "load_model", "save_model"]
