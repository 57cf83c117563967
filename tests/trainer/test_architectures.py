"""What core knows of architectures without torch, against what their classes say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

from tunedeck.core.schema.model_facts import model_facts
from tunedeck.trainer.model.attention import keeps_rows_apart

_BY_SIZES = ("lfm2", "lfm2_moe", "lfm2_vl")
"""Those published have short convolutions; with the class's own sizes there are none."""
_LISTS = ("layer_types", "layers_block_type", "block_types")


def _architectures() -> list[tuple[str, Any, Any]]:
    """Every architecture of transformers that can be made with its own sizes, and its class."""
    found = []
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        for name, classes in auto._model_mapping._model_mapping.items():
            model = getattr(transformers, classes if isinstance(classes, str) else classes[0], None)
            try:
                config = CONFIG_MAPPING[name]()
                config.get_text_config()
                found.append((name, config, model))
            # Some have no sizes of their own, some need another package.
            except Exception:  # noqa: BLE001
                continue
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_architectures_that_cannot_pack_are_known_without_torch() -> None:
    known = [one for one in _architectures() if one[2] is not None]
    assert len(known) > 100
    wrong = []
    for name, config, model in known:
        values = config.to_dict()
        # A folder's config.json may leave the kinds of the layers out.
        for table in (values, values.get("text_config") or {}):
            for key in _LISTS:
                table.pop(key, None)
        facts, apart = model_facts(values), keeps_rows_apart(model, config)
        if not (apart or facts.carries or facts.vision or facts.encodes or facts.translates):
            wrong.append(f"{name} does not keep rows apart, and is not known to")
        if name in _BY_SIZES:
            assert facts.carries
        elif facts.carries and apart:
            wrong.append(f"{name} keeps rows apart, and is refused")
    assert wrong == [], "; ".join(wrong)
