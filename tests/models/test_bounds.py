"""What the numbers of a model's fields may be."""

from types import SimpleNamespace

import pytest

from models.bounds import require_least


def test_require_least_names_the_first_field_that_is_less():
    config = SimpleNamespace(frames=2, width=0, latent=-1)
    require_least(config, {"frames": 2, "width": 0})
    with pytest.raises(ValueError, match=r"^width=0: must be an integer of 1 or more$"):
        require_least(config, {"frames": 2, "width": 1, "latent": 1})
    with pytest.raises(ValueError, match=r"^latent=-1: must be 0 or more$"):
        require_least(config, {"latent": 0}, what="")
