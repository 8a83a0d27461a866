"""The status subresources of both custom resources: what the operator says of them."""

from typing import Any, Final, Literal

from pydantic import Field

from consul_registrar.api.base import ATOMIC, Model, list_map

#: The status with which an object is born.
NOBODY_LOOKED: Final[dict[str, Any]] = {"observedGeneration": -1}


class Condition(Model):
    """A condition, as everywhere in Kubernetes."""

    type: str = Field(max_length=316, description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(max_length=1024, description="Why, in one CamelCase word.")
    message: str = Field(max_length=32768, description="Why, in a sentence.")
    last_transition_time: str = Field(
        description="When status changed last.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation that it speaks of.")


class Instances(Model):
    """Counts of instances; over all Consuls of the registration."""

    desired: int = Field(ge=0, description="How many should be in Consul now.")
    registered: int = Field(ge=0, description="How many are.")
    passing: int = Field(ge=0, description="How many of those pass all their checks.")
    warning: int = Field(ge=0, description="How many have a warning.")
    critical: int = Field(ge=0, description="How many are critical.")
    waiting: int = Field(ge=0, description="How many changes wait: the registration is suspended or only observed.")
    summary: str = Field(max_length=32, description="registered/desired.")


class ConsulStatus(Model):
    """One Consul of the registration."""

    name: str = Field(max_length=253, description="Name of the ConsulConnection.")
    registered: int = Field(ge=0, description="How many instances are registered there.")
    passing: int = Field(ge=0, description="How many of those pass all their checks.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=8,
        description="Reachable: this Consul can be written to. ForeignInstances, only where it is True: instances that "
        "no operator has registered stand there under the service's name too.",
        json_schema_extra=list_map("type"),
    )


class Problem(Model):
    """Why one subject is not registered as it should be."""

    subject: str = Field(max_length=320, description="Name of the Pod or endpoint.")
    reason: str = Field(max_length=128, description="Why, in one CamelCase word.")
    message: str = Field(max_length=2048, description="Why, in a sentence.")


class Problems(Model):
    """What keeps instances out of Consul."""

    counts: dict[str, int] = Field(default_factory=dict, description="Subjects not registered, by reason.")
    worst: list[Problem] = Field(
        default_factory=list, max_length=10, description="Ten of them, by name.", json_schema_extra=ATOMIC
    )


class Reaped(Model):
    """An instance that its agent removed after it had been critical for long."""

    subject: str = Field(max_length=320, description="UID of the Pod or name of the endpoint.")
    name: str = Field(max_length=320, description="Name of the Pod or endpoint.")
    connection: str = Field(max_length=253, description="Name of the ConsulConnection.")
    at: str = Field(description="When it was noticed.", json_schema_extra={"format": "date-time"})
    attempts: int = Field(ge=1, description="How often it was reaped in a row.")
    seen: str = Field(max_length=64, description="What it looked like then; a change registers it again.")


class ServiceRegistrationStatus(Model):
    """What became of the registration."""

    observed_generation: int = Field(
        default=0, ge=-1, description="The metadata.generation that status speaks of; -1: nobody has looked yet."
    )
    consul_service: str = Field(default="", max_length=253, description="Name of the service in Consul.")
    instances: Instances | None = Field(default=None, description="Counts of instances.")
    consuls: list[ConsulStatus] = Field(
        default_factory=list, max_length=8, description="Each Consul.", json_schema_extra=list_map("name")
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready on top; Accepted: spec, references and name; Synced: Consul holds it.",
        json_schema_extra=list_map("type"),
    )
    problems: Problems | None = Field(default=None, description="What keeps instances out of Consul.")
    resync: str = Field(
        default="",
        max_length=253,
        description="Value of the annotation consul-registrar.dev/resync for which all was read anew last.",
    )
    reaped: list[Reaped] = Field(
        default_factory=list,
        max_length=512,
        description="Instances that their agents removed, as the checks asked; registered again when the Pod changes.",
        json_schema_extra=list_map("subject", "connection"),
    )


class Removals(Model):
    """Removals of what is absent that are held, since too much is absent at once."""

    held: int = Field(ge=1, description="How many subjects are held.")
    hash: str = Field(
        max_length=64,
        description="Names exactly what is held; the annotation consul-registrar.dev/approve-removals with this value "
        "releases it.",
    )
    shown: list[str] = Field(default_factory=list, max_length=10, description="Ten of them.", json_schema_extra=ATOMIC)


class TokenRotation(Model):
    """A token that takes the place of another."""

    accessor_id: str = Field(max_length=64, alias="accessorID", description="Accessor ID of the new token.")
    instances_left: int = Field(ge=0, description="How many instances stand under another token at their agents.")


class TokenStatus(Model):
    """Which ACL token is used; never the token itself."""

    accessor_id: str = Field(
        max_length=64,
        alias="accessorID",
        description="Accessor ID of the token that every instance stands under; while a rotation is under way, of the "
        "one before.",
    )
    rotation: TokenRotation | None = Field(
        default=None, description="The rotation under way: agents are given each instance anew, with the new token."
    )


class ConsulConnectionStatus(Model):
    """How the Consul looks from the operator."""

    observed_generation: int = Field(
        default=0, ge=-1, description="The metadata.generation that status speaks of; -1: nobody has looked yet."
    )
    version: str = Field(default="", max_length=64, description="Version of Consul.")
    datacenter: str = Field(default="", max_length=64, description="Datacenter.")
    leader: str = Field(
        default="",
        max_length=300,
        description="Address of the server that leads, as it was told last; asked every 30 s. Unset: there is none.",
    )
    token: TokenStatus | None = Field(default=None, description="The ACL token in use.")
    agents: int = Field(default=0, ge=0, description="How many agents there should be.")
    agents_ready: int = Field(default=0, ge=0, description="How many of them can be written to.")
    instances: int = Field(default=0, ge=0, description="How many instances stand there that are this connection's.")
    removals: Removals | None = Field(default=None, description="What is held; unset while nothing is.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready: it can be written to. RemovalsHeld: too much is absent at once to be removed. "
        "TokenCurrent: everything stands under the token as it was read last.",
        json_schema_extra=list_map("type"),
    )
