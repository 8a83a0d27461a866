"""Name, tags, metadata, weights and further addresses of an instance: a spec's texts with their field paths filled in.

Decides what Consul would refuse, or would take for something else, before it is written. Where the values come from is
decided in `desired.py`. Everything here raises Unpublishable.
"""

import hashlib
import json
import re
from collections.abc import Mapping

from consul_registrar import fieldpath, model
from consul_registrar.api.base import SERVICE_NAME
from consul_registrar.api.registration import LiteralWeights, Service, ServiceWeights
from consul_registrar.checks import Unpublishable, checks_hash, filled
from consul_registrar.model import Check, TaggedAddress, Weights
from consul_registrar.names import RESERVED, folded

_MAX_SERVICE = 128
_MAX_TAG = 255
_MAX_META = 512  # bytes, as Consul counts
_SURELY_SHORT = _MAX_META // 4  # characters; of UTF-8 none takes more than four bytes
_MAX_META_PAIRS = 63  # Consul takes 64; one is kept for the nonce that makes an agent push
_MAX_WEIGHT = 65535
_DIGITS = 5


def name_of(text: str, values: fieldpath.Values) -> str:
    """The service's name that field paths make."""
    name = filled(text, values, "spec.service.name")
    if len(name) > _MAX_SERVICE or not re.fullmatch(SERVICE_NAME, name) or folded(name) == RESERVED:
        message = (
            f"spec.service.name: {name!r} must be 1 to {_MAX_SERVICE} letters, digits, dots, dashes and underscores, "
            "beginning and ending with a letter or digit, and not 'consul'"
        )
        raise Unpublishable("ValueInvalid", message)
    return name


def weights_of(given: ServiceWeights | LiteralWeights, values: fieldpath.Values) -> Weights:
    """The weights of an instance."""
    passing, warning = _weight(given.passing, "passing", values, 1), _weight(given.warning, "warning", values, 0)
    return Weights(passing, warning)


def _weight(given: int | str, name: str, values: fieldpath.Values, least: int) -> int:
    if isinstance(given, int) and least <= given <= _MAX_WEIGHT:
        return given
    text = str(given) if isinstance(given, int) else filled(given, values, f"spec.service.weights.{name}")
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and least <= int(text) <= _MAX_WEIGHT):
        message = f"spec.service.weights.{name}: {text!r} must be a number from {least} to {_MAX_WEIGHT}"
        raise Unpublishable("ValueInvalid", message)
    return int(text)


def tagged_of(service: Service) -> tuple[TaggedAddress, ...]:
    """The further addresses of an instance, sorted."""
    return tuple(sorted(TaggedAddress(name, at.address, at.port) for name, at in service.tagged_addresses.items()))


def tags_of(texts: list[str], values: fieldpath.Values) -> tuple[str, ...]:
    """The tags of an instance, sorted."""
    tags = {filled(text, values, f"spec.service.tags {text!r}") for text in texts}
    for tag in tags:
        if not 0 < len(tag) <= _MAX_TAG or not tag.isprintable():
            message = f"spec.service.tags: {tag!r} must be 1 to {_MAX_TAG} printable characters"
            raise Unpublishable("ValueInvalid", message)
    return tuple(sorted(tags))


def tags_hash(tags: tuple[str, ...]) -> str:
    """What tells an edit of the spec's tags, where those that stand are others' to edit (`enableTagOverride`)."""
    return hashlib.sha256(json.dumps(tags).encode()).hexdigest()[:16]


def meta_of(
    texts: Mapping[str, str], values: fieldpath.Values, own: dict[str, str], checks: tuple[Check, ...]
) -> tuple[tuple[str, str], ...]:
    """The metadata of an instance, sorted; `own` (the operator's, and that of a single endpoint) goes over `texts`."""
    given = {key: filled(text, values, f"spec.service.meta[{key}]") for key, text in texts.items()}
    meta = given | own
    for key, value in given.items():
        too_long = len(value) > _SURELY_SHORT and len(value.encode()) > _MAX_META
        if key not in own and (too_long or not value.isprintable()):
            message = f"spec.service.meta[{key}] must be at most {_MAX_META} bytes of printable characters"
            raise Unpublishable("ValueInvalid", message)
    meta[model.META_HASH] = checks_hash(checks)
    if len(meta) > _MAX_META_PAIRS:
        message = (
            f"spec.service.meta must leave room: at most {_MAX_META_PAIRS} pairs in all, these would be {len(meta)}"
        )
        raise Unpublishable("ValueInvalid", message)
    return tuple(sorted(meta.items()))
