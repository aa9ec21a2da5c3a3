"""What the other tests rely on: while they run, what jaxcam's annotations say is checked, shapes and types."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import jaxcam
from jaxcam.checks import check_key
from jaxcam.images.preprocessing import Preprocessing

CALLS = {
    "number of axes": lambda: jaxcam.cam(jnp.ones(4), jnp.ones((2, 3, 4)), 0),
    "an axis of two sizes": lambda: jaxcam.cam(jnp.ones((5, 3)), jnp.ones((2, 3, 4)), 0),
    "no array": lambda: jaxcam.cam([[1.0]], jnp.ones((2, 3, 1)), 0),
    "type, where nothing has a shape": lambda: check_key(3, jax.random.key(0)),
    "type of a dataclass's field": lambda: Preprocessing(mean="grey"),
}


@pytest.mark.parametrize("wrong", CALLS)
def test_annotations_are_checked(wrong):
    for _ in range(2):  # the check is made at the first call
        with pytest.raises(TypeCheckError):
            CALLS[wrong]()


@pytest.mark.usefixtures("unchecked")
def test_they_are_not_where_a_test_wants_what_users_see():
    check_key(3, jax.random.key(0))
