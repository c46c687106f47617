# An image that exists has passed `make test`: the tests are a step of its build.
#   docker build -t sem .
#   docker run --rm sem train --config configs/tiny.yaml --training.max_minutes 1
FROM python:3.11-bookworm
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ make libgtest-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /sem
COPY . .
RUN make test
ENV PATH="/sem/.venv/bin:$PATH"
ENTRYPOINT ["sem"]
CMD ["info"]
