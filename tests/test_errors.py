"""What a library says, cut down to what a user can read."""

import pytest
from pydantic import BaseModel, ValidationError

from mia_bench.errors import brief


class Model(BaseModel):
    name: str
    count: int


def test_one_short_line():
    assert brief(ValueError("first\n   second")) == "first second"
    assert brief(ValueError("word " * 100), 20) == "word word word w ..."
    assert brief(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_validation_error_is_its_fields_and_problems():
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"count": "x"})
    assert brief(caught.value).startswith("Model.name: Field required; Model.count: Input should be a valid integer")
