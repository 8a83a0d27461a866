"""The connection `default` as Consul's own variables describe it."""

import pytest

from consul_registrar.api.access import ClientCertificate, Source
from consul_registrar.settings import EnvironmentInvalid, Settings, default_connection


def made(**environment: str):
    given = {"CONSUL_HTTP_ADDR": "https://consul:8501", **environment}
    return default_connection(Settings("test", mode="Catalog", environment=given)).spec


def test_a_client_certificate_is_a_file_and_its_keys_file():
    tls = made(CONSUL_CLIENT_CERT="/tls/tls.crt", CONSUL_CLIENT_KEY="/tls/tls.key").tls
    assert tls.client_certificate == ClientCertificate(
        certificate=Source(file="/tls/tls.crt"), key=Source(file="/tls/tls.key")
    )


def test_without_variables_of_tls_there_is_none():
    assert made().tls is None


@pytest.mark.parametrize("name", ["CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"])
def test_a_client_certificate_without_its_key_is_refused(name: str):
    with pytest.raises(EnvironmentInvalid, match="CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"):
        made(**{name: "/tls/file"})


@pytest.mark.parametrize("name", ["CONSUL_NAMESPACE", "CONSUL_PARTITION"])
def test_what_consul_enterprise_alone_has_is_refused_not_ignored(name: str):
    with pytest.raises(EnvironmentInvalid, match=f"{name} must not be set: namespaces and partitions"):
        made(**{name: "team-a"})
    assert made(**{name: ""}).namespace is None
