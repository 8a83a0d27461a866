"""The custom resources: pydantic models, the one source of the CRDs in `crds/`."""

from consul_registrar.api.base import GROUP, VERSION
from consul_registrar.api.check import Check
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.api.registration import ServiceRegistrationSpec

__all__ = ["GROUP", "VERSION", "Check", "ConsulConnectionSpec", "ServiceRegistrationSpec"]
