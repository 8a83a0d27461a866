"""Credentials for the Kubernetes API: the service account of the Pod we run in, else a kubeconfig.

What a login is, and how it becomes headers and TLS, is kopf's (`kopf.ConnectionInfo`), so that kopf and our own client
log in alike. Decided here: which way, when credentials are read again, and what to say when there is none.
"""

import asyncio
import dataclasses
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kopf
import yaml

from consul_registrar.kube.errors import LoginFailed

_log = logging.getLogger(__name__)

#: Tokens are rotated on disk (a Pod's lives an hour) or by a plugin; reading them again costs little. Not more often:
#: with every login kopf cuts its watches and resumes them.
REFRESH = timedelta(minutes=10)

_NO_WAY = (
    "no way to log in to Kubernetes: not running in a Pod with a service account token, "
    "KUBECONFIG is not set, and there is no ~/.kube/config"
)

_NO_LIBRARY = (
    "this kubeconfig names a plugin, a token file or a relative path, which takes the package `kubernetes`: "
    "pip install 'consul-registrar[kubeconfig]'"
)


async def login() -> kopf.ConnectionInfo:
    """Read the credentials; plugins of a kubeconfig may run for seconds, so this is done in a thread.

    Raises `LoginFailed` with what is missing or wrong.
    """
    return await asyncio.to_thread(_login)


def _login() -> kopf.ConnectionInfo:
    settings = kopf.OperatorSettings()
    info = kopf.login_with_service_account(settings=settings)
    if info is not None:
        return _rotating(dataclasses.replace(info, server=_server_in_cluster(info.server)))
    info = _from_kubeconfig(settings)
    if info is None:
        raise LoginFailed(_NO_WAY)
    return info


def _rotating(info: kopf.ConnectionInfo) -> kopf.ConnectionInfo:
    return dataclasses.replace(info, expiration=datetime.now(UTC) + REFRESH)


def _server_in_cluster(default: str) -> str:
    """The address that every Pod is given, as client-go does it: it needs no cluster DNS (host network)."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return default
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _from_kubeconfig(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
    paths = _kubeconfig_paths()
    if not any(path.exists() for path in paths):
        return None
    try:
        if not _needs_library(paths):
            return kopf.login_with_kubeconfig(settings=settings)
        # The `kubernetes` package costs 49 MB of memory; kopf imports it inside this function only.
        info = kopf.login_via_client(logger=_log, settings=settings)
    except ImportError as error:
        raise LoginFailed(_NO_LIBRARY) from error
    except Exception as error:  # the libraries raise what they like, a plugin's failure included
        raise LoginFailed(f"can't log in by kubeconfig {os.pathsep.join(map(str, paths))}: {error!r}") from error
    return None if info is None else _rotating(info)


def _kubeconfig_paths() -> list[Path]:
    listed = os.environ.get("KUBECONFIG") or "~/.kube/config"
    return [Path(part.strip()).expanduser() for part in listed.split(os.pathsep) if part.strip()]


def _needs_library(paths: Iterable[Path]) -> bool:
    """Whether these kubeconfigs hold what kopf's reader can't do: plugins, token files, relative or missing paths."""
    for path in paths:
        if not path.exists():
            return True
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        users = [entry.get("user") or {} for entry in config.get("users") or []]
        clusters = [entry.get("cluster") or {} for entry in config.get("clusters") or []]
        if any({"exec", "auth-provider", "tokenFile"} & user.keys() for user in users):
            return True
        files = [user.get(key) for user in users for key in ("client-certificate", "client-key")]
        files += [cluster.get("certificate-authority") for cluster in clusters]
        if any(file and not Path(file).is_absolute() for file in files):
            return True
    return False
