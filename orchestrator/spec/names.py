"""Which model a public name leads to."""

from collections.abc import Mapping, Sequence

from orchestrator.spec.spec import ModelSpec

PUBLISHER = "deepseek-ai"  # checkpoints are also asked for as they are published


def public_names(models: Sequence[ModelSpec]) -> Mapping[str, ModelSpec]:
    """Every name that clients may use, aliases first: the order in which they are listed.

    An alias that the spec gives goes before one of the catalogue's, and among these the model that
    was released last has it: `deepseek-reasoner` is the newest R1 there is.
    """
    newest = sorted(models, key=lambda model: model.profile.released, reverse=True)
    names: dict[str, ModelSpec] = {}
    for model in newest:
        names |= dict.fromkeys(model.aliases or (), model)
    for model in newest:
        for alias in model.profile.aliases if model.aliases is None else ():
            names.setdefault(alias, model)
    for model in newest:
        names.setdefault(model.name, model)
    for model in newest:
        names.setdefault(f"{PUBLISHER}/{model.name}", model)
    return names
