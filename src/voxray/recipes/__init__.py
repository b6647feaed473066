"""A recipe: everything that defines a model but its weights."""

from voxray.recipes.recipe import Recipe, load_recipe, recipe_names

__all__ = ["Recipe", "load_recipe", "recipe_names"]
