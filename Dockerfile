# The operator's image: Python, the locked dependencies and the operator, on nothing. No shell, package manager or pip.
# BASE lends its Python (>= 3.11, with venv) and the system libraries that this is linked to.
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS build
# WHEELS: a folder in the build context with wheels to take instead of asking a package index.
ARG WHEELS=
# EXTRA=traces: with what `--traces` needs (requirements/traces.lock).
ARG EXTRA=run
WORKDIR /src
COPY requirements/${EXTRA}.lock requirements/
COPY ${WHEELS:-requirements} /wheels
RUN python3 -m venv /opt/consul-registrar \
 && /opt/consul-registrar/bin/python -m pip install --disable-pip-version-check --no-cache-dir --no-compile \
      ${WHEELS:+--no-index --find-links /wheels} --require-hashes --requirement requirements/${EXTRA}.lock
COPY operator operator
# The package is plain Python: copied beside its dependencies, it needs no build tools. pip itself stays behind.
RUN site="$(/opt/consul-registrar/bin/python -c 'import site; print(site.getsitepackages()[0])')" \
 && cp -r operator/consul_registrar "$site/" \
 && printf '#!/opt/consul-registrar/bin/python\nfrom consul_registrar.cli import main\nmain()\n' \
      > /opt/consul-registrar/bin/consul-registrar \
 && chmod 0755 /opt/consul-registrar/bin/consul-registrar \
 && /opt/consul-registrar/bin/python -m pip uninstall --yes --quiet pip setuptools
COPY dev/image/collect.py .
RUN python3 collect.py /opt/consul-registrar /image

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="consul-registrar" \
      org.opencontainers.image.description="Keeps Consul's catalog true to Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/consul-registrar/consul-registrar" \
      org.opencontainers.image.documentation="https://github.com/consul-registrar/consul-registrar/tree/main/docs"
COPY --from=build /image /
# By default the C library keeps ever larger buffers of what is read once, at the start: 4 MiB at 10,000 instances.
ENV PATH=/opt/consul-registrar/bin \
    HOME=/ \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    MALLOC_MMAP_THRESHOLD_=131072 \
    MALLOC_TRIM_THRESHOLD_=131072
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/opt/consul-registrar/bin/consul-registrar"]
CMD ["run"]
