"""What status says: the truth table of Ready row by row, and that nothing moves where nothing has changed."""

import json
from typing import Any

import pytest

from consul_registrar.api.status import ServiceRegistrationStatus
from consul_registrar.conditions import Picture, Verdict, accepted, conditions, ready, says, status, synced
from consul_registrar.exposure import Lack
from consul_registrar.model import Health, Reason
from consul_registrar.objects import Registration
from consul_registrar.tally import Outcome, Summary, Tally
from unit.core.build import NOW, OLD, of_pods, reason, registration

DELETED = registration(deletionTimestamp=OLD)
SUSPENDED = registration(of_pods(suspend=True))
WELL = Outcome("web-1", True, True, Health.PASSING)
SICK = Outcome("web-2", True, True, Health.CRITICAL)
PROBLEM = Outcome("web-3", True, False, None, reason("PortNotFound", "no such port"), problem=True)
WITHHELD = Outcome("web-4", True, False, withheld=True)
COMING = Outcome("web-5", True, False)
WAITING = Outcome("web-6", False, False, None, reason("PodNotRunning", "the Pod is Pending"))
DOWN = {"default": reason("Unreachable", "connection refused")}
MISSING = Lack(reason("KubernetesServiceNotFound", "there is none"), problem=True)
PENDING = Lack(reason("LoadBalancerPending", "no address yet"), problem=False)
REFUSED = reason("ServiceNameTaken", "it belongs to somebody else")


def summary(*outcomes: Outcome) -> Summary:
    tally = Tally()
    for outcome in outcomes:
        tally.put("default", f"uid-{outcome.name}", outcome, 0)
    return tally.summary()


def picture(*outcomes: Outcome, of: Registration | None = None, **fields: Any) -> Picture:
    defaults: dict[str, Any] = {"refused": None, "advice": "", "down": {}, "policies": {"default": "Sync"}}
    return Picture(registration=of or registration(), summary=summary(*outcomes), **(defaults | fields))


ALL = (WELL, SICK, PROBLEM, WITHHELD, COMING, WAITING)
ROWS = [
    (picture(*ALL, of=DELETED, refused=REFUSED, awaited=1, down=DOWN), False, "Deleting"),
    (picture(of=DELETED, blocked=reason("DeregistrationBlocked")), False, "DeregistrationBlocked"),
    (picture(blocked=reason("FinalizerNotAdded"), awaited=1), False, "FinalizerNotAdded"),
    (picture(*ALL, of=SUSPENDED, refused=REFUSED, awaited=1, down=DOWN), False, "ServiceNameTaken"),
    (picture(*ALL, of=SUSPENDED, awaited=1, down=DOWN), None, "Reconciling"),
    (picture(*ALL, of=SUSPENDED, down=DOWN), True, "Suspended"),
    (picture(*ALL, down=DOWN), False, "Unreachable"),
    (picture(down=DOWN), False, "Unreachable"),
    (picture(*ALL), False, "PortNotFound"),
    (picture(*ALL, lack=MISSING), False, "PortNotFound"),
    (picture(WITHHELD, lack=MISSING, policies={"default": "Observe"}), False, "KubernetesServiceNotFound"),
    (picture(WELL, WITHHELD, COMING, policies={"default": "Observe"}), False, "Observed"),
    (picture(lack=PENDING), True, "LoadBalancerPending"),
    (picture(COMING, lack=PENDING), False, "Registering"),
    (picture(WELL, WITHHELD, COMING, policies={"default": "UpsertOnly"}), False, "UpsertOnly"),
    (picture(WELL, COMING), False, "Registering"),
    (picture(), True, "NoPodsMatched"),
    (picture(WAITING), True, "WaitingForPods"),
    (picture(WELL, WAITING), True, "Registered"),
    (picture(WELL), True, "Registered"),
    (picture(WELL, SICK), True, "Registered"),
    (picture(SICK), True, "Registered"),
]


@pytest.mark.parametrize(("known", "expected", "code"), ROWS)
def test_ready_is_the_first_row_that_holds(known: Picture, expected: bool | None, code: str) -> None:
    verdict = ready(known)
    assert (verdict.status, verdict.reason.code) == (expected, code)


@pytest.mark.parametrize("health", [None, *Health])
def test_health_never_changes_ready(health: Health | None) -> None:
    assert ready(picture(Outcome("web-1", True, True, health))).text == "True"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (picture(WELL, SICK, of=DELETED), "2 instances are being removed"),
        (picture(WELL, awaited=3), "the outcome of 3 instances is not known yet"),
        (picture(WITHHELD, of=SUSPENDED), "spec.suspend is set; 1 changes wait"),
        (picture(down={"b": reason("X", "far"), "a": reason("Y", "near")}), "Consul 'a': near"),
        (picture(PROBLEM), "web-3: no such port"),
        (picture(WITHHELD, policies={"default": "Observe"}), "the connection's policy lets 1 changes wait"),
        (picture(WELL, COMING), "1 of 2 instances registered"),
        (picture(), "no Pod matches spec.pods.selector in this namespace"),
        (picture(WAITING), "no Pod is to be registered yet: 1 PodNotRunning"),
        (picture(WELL, SICK), "2 of 2 instances registered, 1 passing"),
    ],
)
def test_ready_says_it_in_a_sentence(known: Picture, message: str) -> None:
    assert ready(known).reason.message == message


def test_the_most_frequent_problem_is_shown_with_an_example() -> None:
    other = [Outcome(f"b-{i}", True, False, None, reason("ValueInvalid", "too long"), problem=True) for i in (2, 1)]
    found = ready(picture(PROBLEM, *other)).reason
    assert (found.code, found.message) == ("ValueInvalid", "b-1: too long (and 2 more, see status.problems)")


@pytest.mark.parametrize(
    ("known", "expected", "code"),
    [
        (picture(), True, "Accepted"),
        (picture(PROBLEM, down=DOWN), True, "Accepted"),
        (picture(refused=REFUSED), False, "ServiceNameTaken"),
        (picture(of=registration({"pods": {}}), refused=reason("InvalidSpec")), False, "InvalidSpec"),
    ],
)
def test_accepted_is_about_the_registration_alone(known: Picture, expected: bool, code: str) -> None:
    verdict = accepted(known)
    assert (verdict.status, verdict.reason.code) == (expected, code)


def test_advice_stands_in_accepted() -> None:
    assert accepted(picture(advice="mind the gap")).reason.message.endswith("; note: mind the gap")


@pytest.mark.parametrize(
    ("known", "expected", "code"),
    [
        (picture(), True, "InSync"),
        (picture(WELL, SICK, WAITING), True, "InSync"),
        (picture(COMING), False, "OutOfSync"),
        (picture(PROBLEM), False, "OutOfSync"),
        (picture(WITHHELD, of=SUSPENDED), False, "OutOfSync"),
        (picture(WELL, down=DOWN), None, "Unreachable"),
        (picture(WELL, awaited=1), None, "Reconciling"),
    ],
)
def test_synced_is_whether_consul_holds_what_it_should(known: Picture, expected: bool | None, code: str) -> None:
    verdict = synced(known)
    assert (verdict.status, verdict.reason.code) == (expected, code)


# --- conditions over time -------------------------------------------------------------------------------------------


def verdicts(status: bool | None = True, code: str = "A") -> dict[str, Verdict]:
    return {"Ready": Verdict(status, Reason(code, "because"))}


def test_a_new_condition_begins_now() -> None:
    assert conditions([], verdicts(), 3, NOW) == [
        {
            "type": "Ready",
            "status": "True",
            "reason": "A",
            "message": "because",
            "lastTransitionTime": NOW,
            "observedGeneration": 3,
        }
    ]


@pytest.mark.parametrize(
    ("later", "moves"),
    [
        (verdicts(True, "A"), False),
        (verdicts(True, "B"), False),
        (verdicts(False, "A"), True),
        (verdicts(None, "A"), True),
    ],
)
def test_last_transition_time_moves_only_with_status(later: Any, moves: bool) -> None:
    before = conditions([], verdicts(), 1, OLD)
    (after,) = conditions(before, later, 2, NOW)
    assert after["lastTransitionTime"] == (NOW if moves else OLD)
    assert after["observedGeneration"] == 2


def test_says_finds_what_was_said_last() -> None:
    assert says({}) is None
    assert says({"conditions": conditions([], verdicts(False, "B"), 1, OLD)}) == ("False", "B")


# --- the whole status -----------------------------------------------------------------------------------------------


def later(known: Picture, made: Any, *outcomes: Outcome) -> Picture:
    return picture(*outcomes, of=registration(status=made), down=known.down, refused=known.refused)


@pytest.mark.parametrize(
    "outcomes", [(), (WELL,), ALL, (PROBLEM, WAITING), (SICK, WELL)], ids=["none", "one", "all", "bad", "sick"]
)
@pytest.mark.parametrize("down", [{}, DOWN])
def test_the_same_outcomes_give_the_same_bytes_whenever_and_in_whatever_order(outcomes: Any, down: Any) -> None:
    first = status(picture(*outcomes, down=down), OLD)
    again = status(later(picture(down=down), first, *reversed(outcomes)), NOW)
    assert json.dumps(again) == json.dumps(first)


def test_status_is_what_its_schema_says() -> None:
    reaped = [{"subject": "u", "name": "n", "connection": "c", "at": OLD, "attempts": 1, "seen": "3/True/0"}]
    made = status(picture(*ALL, down=DOWN, reaped=reaped, resync="one"), NOW)
    parsed = ServiceRegistrationStatus.model_validate(made)
    assert parsed.model_dump(by_alias=True) == made


def test_status_counts() -> None:
    made = status(picture(*ALL), NOW)
    assert made["observedGeneration"] == 3
    assert made["consulService"] == "web"
    assert made["instances"] == {
        "desired": 5,
        "registered": 2,
        "passing": 1,
        "warning": 0,
        "critical": 1,
        "waiting": 1,
        "summary": "2/5",
    }
    assert made["problems"] == {
        "counts": {"PodNotRunning": 1, "PortNotFound": 1},
        "worst": [
            {"subject": "web-3", "reason": "PortNotFound", "message": "no such port"},
            {"subject": "web-6", "reason": "PodNotRunning", "message": "the Pod is Pending"},
        ],
    }
    assert [condition["type"] for condition in made["conditions"]] == ["Ready", "Accepted", "Synced"]


def test_each_consul_says_whether_it_can_be_written_to() -> None:
    spec = of_pods(consulRefs=[{"name": "default"}, {"name": "far"}])
    made = status(picture(WELL, of=registration(spec), down={"far": reason("Unreachable", "refused")}), NOW)
    seen = [(c["name"], c["registered"], c["conditions"][0]["status"]) for c in made["consuls"]]
    assert seen == [("default", 1, "True"), ("far", 0, "False")]


def test_a_consul_that_was_left_is_shown_while_something_stands_there() -> None:
    made = status(picture(WELL, of=registration(of_pods(consulRefs=[{"name": "new"}]))), NOW)
    assert [c["name"] for c in made["consuls"]] == ["default", "new"]


def test_what_is_empty_is_left_out() -> None:
    made = status(picture(of=registration({"pods": {}}), refused=REFUSED), NOW)
    assert not {"problems", "reaped", "consulService"} & made.keys()


def test_no_message_is_longer_than_its_field() -> None:
    long = Outcome("n" * 400, True, False, None, reason("X", "m" * 5000), problem=True)
    (entry,) = status(picture(long), NOW)["problems"]["worst"]
    assert (len(entry["subject"]), len(entry["message"])) == (320, 2048)
