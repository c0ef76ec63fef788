"""The type checker that the import hook of jaxtyping applies to all annotated functions, in tests only."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is accepted as a float
