# docker build --file=search.Dockerfile --tag={{ search_image }} <checkout of apparel_embed>
FROM python:3.11-slim-bookworm
WORKDIR /opt/apparel_embed
COPY requirements.lock setup.py pyproject.toml README.md ./
COPY apparel_embed ./apparel_embed
COPY tools ./tools
COPY flags ./flags
RUN python -m pip install --no-cache-dir --constraint=requirements.lock '.[search,serving]'
# The service writes nothing except what libraries put below /tmp.
ENV HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["python", "tools/serve_search.py", "--host=0.0.0.0", "--port=8080"]
CMD ["--run_dir=/run_dir"]
