"""A bundle as a scoring service: `opening` loads it, `service` answers, `bodies` reads,
`connections` limits, `server` runs them.

uvicorn brings HTTP, its states and its shutdown, and nothing that stands between it and a bad client: no time for
headers or bodies, no bound on connections. A proxy in front would have them, but whoever types `natix serve` has none,
so they are here, on uvicorn's own protocol class. Replacing uvicorn was rejected: what it does is most of the work.
"""

from natix_lib.serving.server import serve

__all__ = ["serve"]
