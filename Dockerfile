# The endpoint of docs/serving.md: docker build --tag=t2i_kd .
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY LICENSE README.md pyproject.toml setup.py ./
COPY t2i_kd t2i_kd
COPY pipelines pipelines
COPY saved_models saved_models
RUN pip wheel --no-cache-dir --no-deps --wheel-dir=/wheels .

FROM python:3.11-slim
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[serve]" \
    && useradd --uid=1000 --create-home endpoint
USER 1000
WORKDIR /home/endpoint
EXPOSE 8500 8501
# 200 while a version is loaded. http.client asks no proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "-c", "import http.client, sys; asked = http.client.HTTPConnection('127.0.0.1', 8501, timeout=4); asked.request('GET', '/healthz'); sys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "t2i_kd.serve", "--host=0.0.0.0"]
# Of a model that comes with the package; others are mounted, and named with --model_name and --model_base_path.
CMD ["--model_name=shapes32"]
