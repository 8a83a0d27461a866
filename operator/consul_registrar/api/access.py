"""How a connection reaches Consul: tokens, logins, certificates, and where each comes from."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from consul_registrar.api.base import DNS_LABEL, OBJECT_NAME, Model, Rule, TlsName, cel, cel_text


class SecretKeyRef(Model):
    """One key of a Secret."""

    namespace: str = Field(min_length=1, max_length=63, pattern=DNS_LABEL, description="Namespace of the Secret.")
    name: str = Field(min_length=1, max_length=253, pattern=OBJECT_NAME, description="Name of the Secret.")
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the Secret.")


class Source(Model):
    """Where a value comes from: exactly one of secretKeyRef and file."""

    secret_key_ref: SecretKeyRef | None = Field(default=None, description="A key of a Secret.")
    file: str | None = Field(
        default=None,
        max_length=1024,
        pattern=r"^/[^\x00-\x1f\x7f]+$",
        description="Absolute path of a file in the operator's container; read again when it changes.",
    )
    rules = (
        Rule(
            "has(self.secretKeyRef) != has(self.file)",
            "must have exactly one of secretKeyRef and file",
            lambda self: (self.secret_key_ref is None) != (self.file is None),
        ),
    )


_META_KEY = r"^[A-Za-z0-9._/-]{1,128}$"
_META_MESSAGE = "must have keys of at most 128 characters out of A-Z a-z 0-9 . _ / -"


def _are_keys(value: Mapping[str, str]) -> Mapping[str, str]:
    if not all(re.fullmatch(_META_KEY, key) for key in value):
        raise ValueError(_META_MESSAGE)
    return value


class KubernetesLogin(Model):
    """A login with an auth method of Consul's of type kubernetes (or jwt), by a service account's token."""

    auth_method: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$", description="Name of the auth method."
    )
    token_file: str = Field(
        default="/var/run/secrets/kubernetes.io/serviceaccount/token",
        max_length=1024,
        pattern=r"^/[^\x00-\x1f\x7f]+$",
        description="Absolute path, in the operator's container, of the service account's token; read at each login.",
    )
    meta: Annotated[dict[str, Annotated[str, Field(max_length=512)]], AfterValidator(_are_keys)] = Field(
        default_factory=dict,
        max_length=16,
        description="What Consul writes into the description of each token.",
        json_schema_extra=cel((f"self.all(k, k.matches({cel_text(_META_KEY)}))", _META_MESSAGE)),
    )


class Auth(Model):
    """What the operator shows to Consul: exactly one of token and kubernetes."""

    token: Source | None = Field(
        default=None, description="The ACL token. Consul's agents sync with the token of the registration."
    )
    kubernetes: KubernetesLogin | None = Field(
        default=None,
        description="Log in for a token, and again before it ends. In mode Catalog only: what agents register under a "
        "token must outlive it.",
    )
    allow_plaintext_token: bool = Field(
        default=False,
        description="Send the token over plain HTTP too. Without it a token is sent only over TLS with a verified "
        "name.",
    )
    rules = (
        Rule(
            "has(self.token) != has(self.kubernetes)",
            "must have exactly one of token and kubernetes",
            lambda self: (self.token is None) != (self.kubernetes is None),
        ),
    )


class ClientCertificate(Model):
    """The certificate that the operator shows to Consul, and its key: of a Secret of type kubernetes.io/tls, say."""

    certificate: Source = Field(description="The certificate in PEM, with what leads to its authority.")
    key: Source = Field(description="Its private key in PEM, without a passphrase.")


class Tls(Model):
    """How the operator and Consul trust each other."""

    ca: Source | None = Field(
        default=None, description="Certificate authorities in PEM; default: those of the operator's image."
    )
    server_name: TlsName = Field(
        default="",
        description="Name to verify in the certificate; default: the host of the address. Agents often have "
        "client.<datacenter>.consul.",
    )
    client_certificate: ClientCertificate | None = Field(
        default=None,
        description="What is shown to Consul where it demands a certificate (verify_incoming). Read again when it "
        "changes; new connections show the new one.",
    )
