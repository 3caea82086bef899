# The command `orc`, with the server as what it runs unless told else. Alone the server answers only
# to itself (403 not-local to others) until ORC_INSECURE_OPEN=1 opens it, inside a private network:
# docker-compose.yml does so, and says why.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/orc
COPY requirements.lock ./
RUN pip --python /opt/orc/bin/python install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE alembic.ini ./
COPY migrations migrations
COPY src src
RUN pip wheel --no-deps --wheel-dir dist . \
    && pip --python /opt/orc/bin/python install --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home orc && install -d -o orc -g orc /data
COPY --from=build /opt/orc /opt/orc
ENV PATH="/opt/orc/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    ORC_HOST=0.0.0.0 \
    ORC_PORT=8000 \
    ORC_DATABASE_URL=sqlite+aiosqlite:////data/orc.db
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['ORC_PORT']), timeout=3); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["orc", "serve"]
