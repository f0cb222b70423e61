# docs/deploy.md: docker build -t lightreasoner . ; a CUDA build of torch comes with pip's default.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home runner && install -d -o runner -g runner /app /home/runner/results
USER runner
WORKDIR /app
COPY --chown=runner . .
RUN make setup && .venv/bin/python -m pip install --no-cache-dir --no-build-isolation -e '.[shared]'
# Results, databases and logs: mount a volume of a local disk here.
ENV LIGHTREASONER_HOME=/home/runner/results
VOLUME /home/runner/results
ENTRYPOINT [".venv/bin/lightreasoner"]
CMD ["run"]
