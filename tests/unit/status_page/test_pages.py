"""The status page as it is sent: escaped, bounded, under a strict policy, and made no more often than it must be."""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from html import escape
from html.parser import HTMLParser

import aiohttp
import pytest

from consul_registrar import status_page
from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Register
from consul_registrar.model import RegistrationKey
from consul_registrar.overview import Change, Detail, Overview, Replica, State
from consul_registrar.status_page.elements import el
from consul_registrar.status_page.overview_page import overview
from consul_registrar.status_page.recent import KEPT, Recent
from consul_registrar.status_page.registration_page import detail, missing
from consul_registrar.status_page.serve import ANSWERS, FRESH, Answers, Asked
from consul_registrar.status_page.sight import Sight
from consul_registrar.status_page.words import CAUSES, verdict
from screens import samples
from screens.samples import Sample
from screens.served import served
from unit.core.build import KEY, body, pod
from unit.core.instant import elapsed, instantly, settle
from unit.core.shell import World

EVIL = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """What a browser would make of it."""

    VOID = frozenset({"img", "input", "link", "meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@asynccontextmanager
async def asked(look: Callable[[], Sample]) -> AsyncIterator[Callable[..., aiohttp.client._RequestContextManager]]:
    async with served(look) as url, aiohttp.ClientSession(url) as session:
        yield session.get


def evil() -> Sample:
    """All that users name, and all that is said of it, tries to be more than text."""
    broken = {"counts": {EVIL: 1}, "worst": [{"subject": EVIL, "reason": EVIL, "message": EVIL}]}
    one = samples.registration(EVIL, EVIL, 3, ready=("False", EVIL, EVIL), problems=broken, since=EVIL)
    looks = samples.Looks(True, samples.Reason(EVIL, EVIL), EVIL, EVIL, EVIL, 1, 1, 3)
    held = samples.Held(9, EVIL, (EVIL,))
    change = Change(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, f"{EVIL}/{EVIL}", EVIL)
    return Sample([one], [samples.connection(EVIL, looks, held)], [change], Replica(EVIL, EVIL, EVIL, True, EVIL))


def test_what_users_name_stays_text() -> None:
    sample = evil()
    brief, whole = sample.overview(EVIL), sample.detail(sample.registrations[0].key)
    assert whole is not None
    for text in (overview(brief, EVIL), detail(whole), missing(sample.replica)):
        assert EVIL not in text
        page = Page(text)
        assert EVIL in page.text
        assert page.tags.count("script") == 1
        assert [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"] == []


def test_text_and_attributes_are_escaped_and_html_is_not_escaped_twice() -> None:
    made = el("p", {"title": EVIL, "hidden": True, "id": False}, EVIL, [el("b", None, "<"), None, 7])
    assert made == f'<p title="{escape(EVIL)}" hidden>{escape(EVIL)}<b>&lt;</b>7</p>'


def test_every_link_is_relative_so_that_any_path_may_be_before_it() -> None:
    for sample in (samples.well(), samples.with_held_removals(), samples.empty()):
        page = Page(overview(sample.overview("")))
        links = [value for _, name, value in page.attributes if name in {"href", "src"}]
        assert [link for link in links if link.startswith(("/", "http", "data", "javascript"))] == []


def test_ten_thousand_instances_make_a_page_of_bounded_size() -> None:
    many = [samples.registration("shop", f"web-{number}", 5, critical=1) for number in range(2000)]
    sample = Sample(many, samples.well().connections, samples.well().changes)
    text = overview(sample.overview(""))
    assert "2\u202f000; the first 200 are shown" in text
    assert len(text.encode()) < 400_000
    one = Sample([samples.registration("shop", "web", 10_000, critical=3)])
    whole = one.detail(KEY)
    assert whole is not None
    text = detail(whole)
    assert "10\u202f000; the first 200 are shown, the unhealthy ones first" in text
    assert len(text.encode()) < 200_000


SENTENCES: list[tuple[Callable[[], Sample], State, str]] = [
    (samples.well, State.GOOD, "Consul holds exactly what it should"),
    (samples.with_problems, State.BAD, "1 Consul can't be written to and 2 registrations are not ready"),
    (samples.with_held_removals, State.BAD, "1 registration is not ready and 24 removals are held"),
    (samples.empty, State.IDLE, "Nothing is registered yet"),
]


@pytest.mark.parametrize(("sample", "state", "sentence"), SENTENCES)
def test_one_sentence_says_how_it_stands(sample: Callable[[], Sample], state: State, sentence: str) -> None:
    assert verdict(sample().overview(""))[:2] == (state, sentence)


def test_a_replica_that_does_not_know_the_cluster_says_so_first() -> None:
    sample = samples.with_problems()
    sample.replica = replace(sample.replica, unready="pods were not listed completely yet")
    assert "pods were not listed completely yet" in overview(sample.overview(""))


def test_a_standby_says_that_another_one_leads() -> None:
    text = Page(overview(samples.standby().overview(""))).text
    assert "Standby" in text
    assert "Leader" not in text
    assert "the leader's page tells of its changes" in text


async def test_each_answer_forbids_all_but_its_own_style_and_script() -> None:
    async with asked(samples.well) as get:
        for path in ("/", "/registrations/shop/web", "/api/overview", "/assets/page.css", "/registrations/no/such"):
            async with get(path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "Set-Cookie" not in answer.headers


async def test_the_same_is_said_as_html_and_as_json() -> None:
    async with asked(samples.with_problems) as get:
        async with get("/api/overview") as answer:
            told = await answer.json()
        assert told["total"] == 17
        assert told["registrations"][0]["reason"] == "ServiceNameTaken"
        async with get("/api/registrations/payments/ledger") as answer:
            assert (await answer.json())["problems"][0]["reason"] == "PortNotFound"
        async with get("/?q=ledger") as answer:
            text = Page(await answer.text()).text
        assert "1 of 17 match" in text
        assert "accounts" not in text


async def test_what_is_not_there_is_404_and_what_would_change_something_is_not_allowed() -> None:
    async with served(samples.well) as url, aiohttp.ClientSession(url) as session:
        for path in ("/registrations/shop/no", "/api/registrations/shop/no", "/else"):
            async with session.get(path) as answer:
                assert answer.status == 404
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            async with session.request(method, "/") as answer:
                assert answer.status == 405


async def test_who_has_it_already_is_not_sent_it_again() -> None:
    sample = samples.well()
    async with asked(lambda: sample) as get:
        async with get("/") as answer:
            tag = answer.headers["ETag"]
        async with get("/", headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.text()) == (304, "")


@dataclass
class Counted:
    """Counts how often it is looked, and what is made of a look."""

    sample: Sample = field(default_factory=samples.empty)
    looks: int = 0
    made: int = 0

    @property
    def replica(self) -> Replica:
        return self.sample.replica

    def look(self) -> "Counted":
        self.looks += 1
        return self

    def overview(self, asked: str) -> Overview:
        self.made += 1
        return self.sample.overview(asked)

    def detail(self, key: RegistrationKey) -> Detail | None:
        self.made += 1
        return self.sample.detail(key)


def test_however_many_look_on_it_is_looked_once_a_second() -> None:
    counted, now = Counted(), 0.0
    answers = Answers(counted.look, lambda: now)
    page = Asked("text/html", None, "")
    assert counted.looks == 0
    for _ in range(100):
        assert answers.get(page)
    assert (counted.looks, counted.made) == (1, 1)
    now = FRESH
    answers.get(page)
    assert (counted.looks, counted.made) == (2, 2)


def test_no_more_different_answers_are_made_in_a_second_than_a_loop_can_bear() -> None:
    counted, now = Counted(), 0.0
    answers = Answers(counted.look, lambda: now)
    given = [answers.get(Asked("text/html", None, str(number))) for number in range(1000)]
    assert [bool(one) for one in given] == [True] * ANSWERS + [False] * (1000 - ANSWERS)
    assert counted.made == ANSWERS
    now = FRESH
    assert answers.get(Asked("text/html", None, "999"))


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_whoever_asks_for_too_much_keeps_nobody_from_the_overview(kind: str) -> None:
    counted = Counted()
    answers = Answers(counted.look, lambda: 0.0)
    for number in range(2 * ANSWERS):
        answers.get(Asked(kind, None, str(number)))
    assert answers.get(Asked("text/html", None, ""))
    assert answers.get(Asked("application/json", None, ""))
    assert counted.looks == 1


def test_whoever_asks_for_what_is_not_there_keeps_nobody_from_what_is() -> None:
    sample = samples.well()
    answers = Answers(lambda: sample, lambda: 0.0)
    for number in range(2 * ANSWERS):
        told = answers.get(Asked("text/html", RegistrationKey("no", str(number)), ""))
        assert told
        assert told.status == 404
    told = answers.get(Asked("text/html", sample.registrations[0].key, ""))
    assert told
    assert told.status == 200


@instantly
async def test_it_says_what_the_loop_has_done() -> None:
    world = World()
    key = world.apply(body())
    world.run_pod(pod())
    known = status_page.Known("prod", world.cache, world.consuls, world.quarantine, lambda: True, lambda: "")
    sight = Sight(known, list)
    async with world.running():
        while not world.cache.registrations[key].status or not world.consul.held:
            await settle()
        look = sight.look()
        brief, whole = look.overview(""), look.detail(key)
    assert brief.total == 1
    assert brief.counts.registered == brief.counts.desired == 1
    assert [(one.name, one.state, one.looks.ready) for one in brief.connections] == [("default", State.GOOD, True)]
    assert whole is not None
    assert [(one.name, one.address) for one in whole.instances] == [("web-1", "10.0.0.1")]
    assert look.detail(RegistrationKey("shop", "other")) is None


@instantly
async def test_what_has_gone_is_told_no_more() -> None:
    world = World()
    key = world.apply(body())
    known = status_page.Known("prod", world.cache, world.consuls, world.quarantine, lambda: True, lambda: "")
    sight = Sight(known, list)
    assert sight.look().overview("").total == 1
    world.cache.remove_registration(key)
    assert sight.look().overview("").total == 0
    assert elapsed() == 0


def test_a_standby_tells_of_held_removals_what_the_leader_has_written() -> None:
    world = World()
    status = {"removals": {"held": 4, "hash": "abc", "shown": ["shop/web web-1"]}}
    world.cache.note_connection_status("default", world.cache.connections["default"].meta.uid, status)
    for leads, held in ((False, 4), (True, 0)):
        known = status_page.Known("prod", world.cache, world.consuls, world.quarantine, lambda leads=leads: leads, str)
        (told,) = Sight(known, list).look().overview("").connections
        assert (told.held.subjects if told.held else 0) == held


def test_a_connection_whose_status_cannot_be_read_says_so_instead_of_what_is_held() -> None:
    world = World()
    connection = world.cache.connections["default"]
    world.cache.note_connection_status("default", connection.meta.uid, {"removals": {"hash": "abc"}})
    known = status_page.Known("prod", world.cache, world.consuls, world.quarantine, lambda: False, str)
    (told,) = Sight(known, list).look().overview("").connections
    assert (told.state, told.looks.reason.code, told.held) == (State.UNHEALTHY, "Unreadable", None)


def test_a_line_that_cannot_be_read_is_one_of_the_changes_and_the_others_are_told() -> None:
    recent = Recent()
    good = {"time": "t", "operation": "register", "cause": "desired", "outcome": "applied", "connection": "default"}
    for line in ("{}", "no JSON", json.dumps(good), '{"time": 1}'):
        recent.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))
    told = recent.changes()
    assert [change.outcome for change in told] == ["unreadable", "applied", "unreadable", "unreadable"]
    sample = samples.well()
    assert "unreadable" in Page(overview(Sample(sample.registrations, sample.connections, told).overview(""))).text


def test_the_last_writes_are_kept_as_the_audit_log_tells_of_them_and_no_more_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "consul_registrar.audit")
    recent, logger = Recent(), logging.getLogger("consul_registrar.audit")
    logger.addHandler(recent)
    try:
        audit = Audit("default", lambda *_: None)
        audit.record_other("claim", "claimed", None)
        _, one = next(iter(samples.standing(samples.registration("shop", "web", 1))))
        for _ in range(KEPT):
            audit.record(Register(one, (), Cause.DESIRED), None, 1)
    finally:
        logger.removeHandler(recent)
    told = recent.changes()
    assert len(told) == KEPT
    assert {(change.operation, change.cause, change.subject) for change in told} == {
        ("register", "desired", one.meta[0][1])
    }


def test_words_for_every_cause_and_operation_that_the_audit_log_documents(request: pytest.FixtureRequest) -> None:
    documented = (request.config.rootpath / "docs" / "observability.md").read_text()
    table = documented.partition("| cause | |")[2].partition("\n\n")[0]
    causes = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([a-z-]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert causes == CAUSES.keys()
    assert {one.value for one in Cause} <= CAUSES.keys()
