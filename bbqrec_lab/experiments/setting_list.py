"""Every setting with its meaning, its value for a row of the tables, and where the value comes from."""

from collections.abc import Mapping

import polars as pl

from bbqrec_lab.experiments.presets import (
    LONG,
    PRESETS,
    by_full_name,
    default_config,
    recipe_of,
    setting_types,
    setting_value,
)
from bbqrec_lab.experiments.runs import IMPORTED
from bbqrec_lab.experiments.variants import UNIQUENESS, find_variant, fit_config, trained_as

MEANINGS: dict[str, str] = {
    "data.split_seed": "seed of time ties, item permutation and evaluation samples, the same for all models and seeds",
    "data.time_ties": "order of events of one user at one time: seeded shuffle, or order of the file",
    "data.k_core": "repeatedly drop users and items with fewer events; 0 keeps all",
    "data.modalities": "names of the modalities to read; empty reads all",
    "data.cold_items": "share of items held out of training: new items with content only",
    "data.text_encoder": "of texts without features: english, ngrams, auto, or a model of sentence-transformers",
    "data.posters": "for ml-100k and ml-1m: a folder of pictures, or `get`; empty uses none",
    "ids.source": "learned by stage 1, random, kmeans, sasrec, published with the bundle, or from a file",
    "ids.ids_file": "for source=file: the file of IDs",
    "ids.transport": "separate colliding items by entropic transport instead of by tokenizer.uniqueness",
    "tokenizer.signals": "modalities that become signals; empty uses all",
    "tokenizer.id_signal": "add a learned vector per item as one more signal",
    "tokenizer.specific": "keep a modality-specific part next to the behaviour part",
    "tokenizer.specific_width": "width of the modality-specific part",
    "tokenizer.normalise": "scale signals to unit length before quantization",
    "tokenizer.levels": "learned codes per ID (L)",
    "tokenizer.codes": "codes per level (K)",
    "tokenizer.code_width": "width of a code vector (E)",
    "tokenizer.hidden": "width of the hidden layer of the encoders",
    "tokenizer.ema_decay": "decay of the moving averages that train the codebook",
    "tokenizer.revive_every": "steps between replacements of unused codes; 0 never replaces",
    "tokenizer.commitment": "weight of the commitment loss",
    "tokenizer.specific_dropout": "share of items whose specific part is dropped in a training step",
    "tokenizer.w_codes_only": "weight of reconstruction from the codes alone",
    "tokenizer.w_mi": "weight of the CLUB penalty between behaviour and specific part",
    "tokenizer.w_cross": "weight of the contrastive loss across signals",
    "tokenizer.w_seq": "weight of the sequence-to-item contrastive loss",
    "tokenizer.temperature": "temperature of the contrastive losses",
    "tokenizer.mi_steps": "steps of the CLUB estimator per training step",
    "tokenizer.uniqueness": "repair of colliding IDs: none, nearest free last code, or TIGER's extra code",
    "tokenizer.lr": "learning rate of stage 1",
    "tokenizer.epochs": "epochs of stage 1",
    "tokenizer.batch_items": "items per step for the terms on single items",
    "tokenizer.batch_users": "histories per step for the sequence term",
    "tokenizer.epoch_steps": "limit of steps per epoch, drawn at random; 0 is no limit",
    "tokenizer.max_events": "events of a history that the sequence term reads",
    "tokenizer.joined": "concatenate the features of all modalities into one signal",
    "tokenizer.shared_codebook": "one codebook for all signals, or one per signal",
    "tokenizer.combine": "how signals form one ID: fused mean, concat of codes, or a chain of residuals",
    "tokenizer.gradient": "estimator of the gradient through the quantizer",
    "tokenizer.codebook_update": "the codebook learns by moving averages or by gradient",
    "tokenizer.w_use": "weight of the loss for even use of codes",
    "tokenizer.w_align": "weight of LETTER's alignment with the item embeddings of a SASRec",
    "recommender.output": "what is predicted: codes of IDs, items, or both with added scores",
    "recommender.w_codes": "weight of the codes if output is both",
    "recommender.width": "width of the transformer (D)",
    "recommender.layers": "blocks of the transformer",
    "recommender.heads": "attention heads (H)",
    "recommender.depth_layers": "blocks of the head over codes",
    "recommender.dropout": "dropout of the embeddings and of each branch of a block",
    "recommender.reweight": "add the discretized similarity bias to attention",
    "recommender.buckets": "buckets of the similarity bias per channel (S)",
    "recommender.lag_bias": "add an attention offset by number of events between two positions",
    "recommender.seen_offset": "add a learned offset to the scores of items of the history",
    "recommender.score_reweight": "add score offsets by co-occurrence and content",
    "recommender.score_buckets": "buckets of these offsets",
    "recommender.score_steps": "steps of training these offsets",
    "recommender.partners": "partners kept of each item: those that came with it most",
    "recommender.unseen": "score of items that training did not see: from the model, or shares of known prefixes",
    "recommender.prefixes": "add a vector per prefix of two codes or more",
    "recommender.init_from_codebook": "start the code vectors from the codebook of stage 1",
    "recommender.max_events": "events of a history that are read (T)",
    "recommender.lr": "peak of the learning rate of stage 2",
    "recommender.weight_decay": "weight decay of stage 2",
    "recommender.epochs": "epochs of stage 2, at most",
    "recommender.min_steps": "small datasets train more epochs until they reach it",
    "recommender.precision": "of matrix products while stage 2 trains: fp32, or bf16 with sums in fp32",
    "recommender.batch_events": "targets per step, on average",
    "recommender.epoch_steps": "limit of steps per epoch, drawn at random; 0 is no limit",
    "recommender.evaluate_every": "epochs between validations",
    "recommender.patience": "validations without improvement before training stops",
    "recommender.loss": "for output=items: ce, bce, gbce or sampled",
    "recommender.negatives": "sampled items of the losses gbce and sampled",
    "recommender.features": "add a linear map of the features to the item embeddings",
    "recommender.granularity": "one position per item, or one per code (as TIGER)",
    "recommender.similarity": "vectors that the bias compares: quantized, signals, or features",
    "recommender.similarity_form": "one offset per bucket, or one linear in the cosine",
    "recommender.bucket_edges": "cut similarities into equal parts of sampled pairs, or of [-1, 1]",
    "recommender.channels": "compare each signal with itself, or pairs of different modalities too",
    "recommender.block": "block of the backbone: plain, ligr, bsarec or hstu",
    "evaluation.early_users": "users of the sample for early stopping",
    "evaluation.beam": "width of beam search",
    "evaluation.exact_items": "largest catalogue that is scored exactly; larger ones use beam search",
    "evaluation.batch": "users that are scored together",
}


def setting_list(
    preset: str = "quick",
    variant: str = "bbqrec",
    overrides: Mapping[str, object] | None = None,
    events: float | None = None,
) -> list[dict[str, object]]:
    """Every setting of a row: setting, value, default, source, meaning.

    Args: events: training events per user, which choose the recipe; None shows both values where recipes differ.
    Returns: one dict per setting; `source` is default, preset, recipe, variant or given. A value that depends on the
        recipe is {"long": ..., "short": ...}, by the length of histories.
    Raises: ValueError as `fit_config`.
    """
    found, given = find_variant(variant), by_full_name(overrides or {})
    config, plain = fit_config(variant, preset, 0, given), default_config()
    families = ("long", "short") if events is None else ("long" if events >= LONG else "short",)
    recipes = {family: recipe_of(preset, trained_as(variant), family) for family in families}
    lines = []
    for name in setting_types():
        value, source = setting_value(config, name), "default"
        recipe = {family: recipe[name] for family, recipe in recipes.items() if name in recipe}
        if name in found.overrides:
            source = "variant"
        elif name in given:
            source = "given"
        elif recipe:
            source = "recipe"
            value = recipe if len(set(recipe.values())) > 1 else next(iter(recipe.values()))
        elif name in PRESETS[preset]:
            source = "preset"
        elif name == UNIQUENESS and config.ids.source in IMPORTED:  # as `runs` has it: imported IDs stay as they are
            value, source = "none", "variant" if "ids.source" in found.overrides else "given"
        default = setting_value(plain, name)
        lines.append({"setting": name, "value": value, "default": default, "source": source, "meaning": MEANINGS[name]})
    return lines


def as_table(lines: list[dict[str, object]]) -> pl.DataFrame:
    """The list as a table of texts."""
    return pl.DataFrame([{name: _shown(value) for name, value in line.items()} for line in lines])


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{family} {part}" for family, part in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)
