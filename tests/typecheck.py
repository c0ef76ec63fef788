"""The checker that jaxtyping's import hook puts on every annotated function of the core, in tests only."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is welcome where a float is asked for
