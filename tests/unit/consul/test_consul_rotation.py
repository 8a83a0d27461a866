"""Which token is shown to Consul, and which instances are given anew when it was replaced."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from consul_registrar import token_status
from consul_registrar.actual import Actual
from consul_registrar.consul import Denied, NotSent, TokenStatus
from consul_registrar.consul.book import Book
from consul_registrar.consul.rotation import Rotation
from consul_registrar.consul.token import Recorded, Token
from consul_registrar.consul.wire import Held, Reader
from consul_registrar.model import Instance, Key, Reason, RegistrationKey
from unit.consul.test_consul_book import instance

WEB = RegistrationKey("shop", "web")
UNKNOWN = Reason("TokenUnknown", "Consul doesn't know it")


class Consul:
    """Knows tokens by their secrets; `answers` is what it says of the others."""

    def __init__(self) -> None:
        self.known = {"old": "accessor-old", "new": "accessor-new"}
        self.answer: Exception = Denied(UNKNOWN)
        self.asked = 0

    async def introduce(self, secret: str) -> str:
        self.asked += 1
        if secret not in self.known:
            raise self.answer
        return self.known[secret]


async def until_idle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def offered(token: Token, consul: Consul, *secrets: str) -> None:
    """Run a token while secrets are offered to it."""
    running = asyncio.ensure_future(token.run(consul.introduce))
    await until_idle()
    for secret in secrets:
        token.offer(secret)
        await until_idle()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_token_is_called_by_the_name_that_consul_gives_it() -> None:
    token = Token("old")
    await offered(token, Consul())
    assert (token(), token.accessor, token.refused) == ("old", "accessor-old", None)
    assert "old" not in repr(token).replace("accessor-old", "")


async def test_a_new_token_is_used_once_consul_has_accepted_it() -> None:
    token = Token("old")
    await offered(token, Consul(), "new")
    assert (token(), token.accessor, token.refused) == ("new", "accessor-new", None)


@pytest.mark.parametrize("error", [Denied(UNKNOWN), NotSent(UNKNOWN), Denied(Reason("ReadIncomplete", "hidden"))])
async def test_a_new_token_that_consul_refuses_leaves_the_one_before_in_use(error: Exception) -> None:
    token, consul = Token("old"), Consul()
    consul.answer = error
    await offered(token, consul, "mistyped")
    assert (token(), token.accessor) == ("old", "accessor-old")
    assert token.refused is not None


async def test_where_nobody_answers_nothing_is_said_of_the_new_token() -> None:
    token, consul = Token("old"), Consul()
    consul.answer = NotSent(Reason("ConsulUnreachable", "nobody"))
    await offered(token, consul, "later")
    assert (token(), token.refused) == ("old", None)


async def test_an_emptied_secret_leaves_the_token_in_use_and_says_so() -> None:
    token = Token("old")
    await offered(token, Consul(), "")
    assert token() == "old"
    assert token.refused is not None
    assert token.refused.code == "TokenEmpty"


async def test_the_same_token_again_asks_consul_nothing() -> None:
    token, consul = Token("old"), Consul()
    await offered(token, consul, "old", "old")
    assert consul.asked == 1


async def test_without_a_token_consul_is_asked_nothing() -> None:
    token, consul = Token(""), Consul()
    await offered(token, consul)
    assert consul.asked == 0


# --- whether to rotate ------------------------------------------------------------------------------------------------


class Status:
    """A connection's status."""

    def __init__(self, said: Recorded | None = None) -> None:
        self.said = said

    def __call__(self) -> Recorded | None:
        return self.said


def rotation(said: Recorded | None, accessor: str = "a") -> tuple[Rotation, Token, Status]:
    status = Status(said)
    token = Token("secret", status)
    token.accessor = accessor
    return Rotation(token), token, status


@pytest.mark.parametrize(
    ("said", "target"),
    [
        (None, ""),
        (Recorded("a", complete=True), ""),
        (Recorded("b", complete=True), "a"),
        (Recorded("a", complete=False), "a"),
        (Recorded("b", complete=False), "a"),
    ],
    ids=["first start", "the same", "replaced meanwhile", "begun and gone back", "begun"],
)
def test_at_the_start_status_tells_whether_all_must_be_given_anew(said: Recorded | None, target: str) -> None:
    assert rotation(said)[0].target() == target


def test_a_token_whose_name_is_not_known_yet_changes_nothing() -> None:
    assert rotation(Recorded("b", complete=True), accessor="")[0].target() == ""


def test_a_replaced_token_is_a_target_until_the_rotation_has_ended() -> None:
    one, token, status = rotation(Recorded("a", complete=True))
    assert one.target() == ""
    token.accessor = "b"
    assert one.target() == "b"
    status.said = Recorded("a", complete=False)
    assert one.target() == "b"
    one.ended()
    assert one.target() == ""
    status.said = Recorded("b", complete=True)
    assert one.target() == ""


def test_a_token_replaced_again_before_the_end_is_given_to_all() -> None:
    one, token, status = rotation(Recorded("a", complete=True))
    for accessor in ("a", "b"):
        token.accessor = accessor
        one.target()
    status.said = Recorded("a", complete=False)
    token.accessor = "a"
    assert one.target() == "a"


def test_who_stands_by_learns_from_status_that_the_leader_has_ended_it() -> None:
    one, token, status = rotation(Recorded("a", complete=True))
    one.target()
    token.accessor = "b"
    assert one.target() == "b"
    status.said = Recorded("b", complete=True)
    assert one.target() == ""


# --- which instances --------------------------------------------------------------------------------------------------


@pytest.fixture
def book() -> tuple[Book, Actual]:
    actual = Actual("tests", "c")
    made = Book("n", Reader("n", "tests", "c"), actual, {})
    made.take([Held(named("i")), Held(named("j"))], None, actual.begin(), 0.0)
    return made, actual


def named(instance_id: str) -> Instance:
    return replace(instance(), id=instance_id)


def outdated(actual: Actual) -> list[str]:
    return sorted(i.id for i in actual.on_node("n") if i.outdated)


def test_the_turn_of_one_instance_comes_after_the_other(book: tuple[Book, Actual]) -> None:
    one, actual = book
    assert one.left("b") == 2
    assert one.renew("b") == {Key(WEB, "uid")}
    assert outdated(actual) == ["i"]
    one.renew("b")
    assert outdated(actual) == ["i", "j"]
    assert one.renew("b") == frozenset()
    assert one.left("b") == 2


def test_what_was_given_anew_is_left_alone(book: tuple[Book, Actual]) -> None:
    one, actual = book
    one.renew("b")
    one.renewed("i")
    one.registered(Held(named("i")), 1.0)
    assert outdated(actual) == []
    assert one.left("b") == 1
    one.renew("b")
    assert outdated(actual) == ["j"]


def test_a_read_changes_nothing_about_whose_turn_it_is(book: tuple[Book, Actual]) -> None:
    one, actual = book
    one.renew("b")
    one.take([Held(named("i")), Held(named("j"))], None, actual.begin(), 1.0)
    assert outdated(actual) == ["i"]


def test_what_is_gone_needs_no_new_token(book: tuple[Book, Actual]) -> None:
    one, actual = book
    one.renew("b")
    one.removed("i")
    one.take([], None, actual.begin(), 1.0)
    assert one.left("b") == 0


def test_another_token_begins_with_all_of_them(book: tuple[Book, Actual]) -> None:
    one, actual = book
    one.renew("b")
    one.renewed("i")
    one.registered(Held(named("i")), 1.0)
    one.renew("c")
    assert one.left("c") == 2
    assert outdated(actual) == ["i"]


def test_what_was_registered_since_stands_under_the_new_token(book: tuple[Book, Actual]) -> None:
    one, _ = book
    one.renew("b")
    one.registered(Held(named("k")), 1.0)
    assert one.left("b") == 2


# --- what is said of it -----------------------------------------------------------------------------------------------

ROTATING = TokenStatus("new", rotating=True, left=3)


@pytest.mark.parametrize(
    ("token", "before", "said"),
    [
        (TokenStatus("new"), {}, {"token": {"accessorID": "new"}}),
        (
            ROTATING,
            {"token": {"accessorID": "old"}},
            {"token": {"accessorID": "old", "rotation": {"accessorID": "new", "instancesLeft": 3}}},
        ),
        (TokenStatus(""), {}, {}),
        (None, {}, {}),
    ],
    ids=["in use", "rotating", "no ACLs", "no token"],
)
def test_status_names_the_token_and_what_stands_under_another(
    token: TokenStatus | None, before: dict[str, object], said: dict[str, object]
) -> None:
    assert token_status.entry(token, before) == said


def test_a_rotation_is_found_again_in_status() -> None:
    before = token_status.entry(TokenStatus("old"), {})
    assert token_status.recorded(before) == Recorded("old", complete=True)
    assert token_status.recorded(token_status.entry(ROTATING, before)) == Recorded("old", complete=False)
    assert token_status.recorded({}) is None


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (TokenStatus("new"), True, "TokenInUse"),
        (ROTATING, False, "TokenRotating"),
        (TokenStatus("old", refused=UNKNOWN), False, "NewTokenRefused"),
        (replace(ROTATING, denied=Reason("PermissionDenied", "no")), False, "TokenWriteDenied"),
    ],
)
def test_the_condition_says_what_is_the_matter(token: TokenStatus, status: bool, code: str) -> None:
    verdict = token_status.verdict(token)["TokenCurrent"]
    assert (verdict.status, verdict.reason.code) == (status, code)
