"""Whose a cluster's name is."""

import base64
import json

import pytest

from consul_registrar.consul.answers import Answer
from consul_registrar.consul.claim import Found, Name, Verdict, decode, judge
from consul_registrar.consul.errors import Misdirected

OURS, OLD, THEIRS = Found("ours", 3), Found("old", 4), Found("theirs", 5)


@pytest.mark.parametrize(
    ("found", "takes_over", "writing", "observing"),
    [
        (None, "", Verdict.CREATE, Verdict.LOOK_ON),
        (None, "old", Verdict.CREATE, Verdict.LOOK_ON),
        (OURS, "", Verdict.OURS, Verdict.OURS),
        (OURS, "old", Verdict.OURS, Verdict.OURS),
        (OURS, "ours", Verdict.OURS, Verdict.OURS),
        (OLD, "old", Verdict.REPLACE, Verdict.LOOK_ON),
        (OLD, "", Verdict.TAKEN, Verdict.TAKEN),
        (THEIRS, "old", Verdict.TAKEN, Verdict.TAKEN),
        (Found("", 6), "", Verdict.TAKEN, Verdict.TAKEN),
    ],
)
def test_what_follows_from_what_is_found(found, takes_over, writing, observing):
    assert judge(found, Name("prod", "ours", takes_over)) is writing
    assert judge(found, Name("prod", "ours", takes_over, observes=True)) is observing


def test_each_cluster_has_a_key_of_its_own():
    assert Name("prod", "x").key == "consul-registrar/clusters/prod"


def row(value: str | None) -> Answer:
    encoded = None if value is None else base64.b64encode(value.encode()).decode()
    return Answer(200, {}, json.dumps([{"Key": "k", "Value": encoded, "ModifyIndex": 7, "Flags": 0}]).encode())


@pytest.mark.parametrize(("value", "uid"), [("a-b", "a-b"), ("a-b\n", "a-b"), ("", ""), (None, ""), ("é", "é")])
def test_a_claim_is_read_with_its_version(value, uid):
    assert decode(row(value)) == Found(uid, 7)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", b'[{"Value": "?"}]'])
def test_what_is_no_claim_is_not_consuls(body):
    with pytest.raises(Misdirected) as caught:
        decode(Answer(200, {}, body))
    assert caught.value.reason.code == "NotConsul"
