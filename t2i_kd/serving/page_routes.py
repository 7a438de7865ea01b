"""The endpoint's page for browsers: a few fixed files, which may load and send nothing but to this endpoint."""

from pathlib import Path

from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Another release of the endpoint may follow at the same address.
    "cache-control": "no-cache",
}


def page_routes():
    """Routes of `/` (index.html) and of every other file of the page by its name.

    The files are read here, once: no request names a file of this host.
    """
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in MEDIA_TYPES]
    return [Route("/" + path.name.replace("index.html", ""), _sender(path)) for path in files]


def _sender(path):
    content, media_type = path.read_bytes(), MEDIA_TYPES[path.suffix]

    async def send(request):
        return Response(content, headers=HEADERS, media_type=media_type)

    return send
