"""What Prometheus may read of an endpoint."""

import prometheus_client as prometheus

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one endpoint, in a registry of their own."""

    def __init__(self, sizes):
        self.registry = prometheus.CollectorRegistry()
        shared = {"registry": self.registry, "namespace": "t2i_kd"}
        # No label holds anything that a client chooses: each new value would be kept for ever.
        self.requests = prometheus.Counter("requests", "Answered requests", ["protocol", "method", "code"], **shared)
        self.seconds = prometheus.Histogram(
            "request_seconds", "From a request's arrival to its answer", ["protocol"], buckets=SECONDS, **shared
        )
        self.rows = prometheus.Histogram("batch_rows", "Rows in a batch, padding left out", buckets=sizes, **shared)
        self.padding = prometheus.Counter("padding_rows", "Rows generated only to fill a batch", **shared)
        self.batch_seconds = prometheus.Histogram(
            "batch_seconds", "The model's time a batch", buckets=SECONDS, **shared
        )
        self.pending = prometheus.Gauge("pending_items", "Captions or images taken in and not yet answered", **shared)
        self.versions = prometheus.Gauge("model_version_loaded", "1 for each loaded version", ["version"], **shared)
        self.refused = prometheus.Counter("versions_refused", "Version folders that were not loaded", **shared)

    def observe_batch(self, rows, size, seconds):
        """Counts one batch."""
        self.rows.observe(rows)
        self.padding.inc(size - rows)
        self.batch_seconds.observe(seconds)

    def text(self):
        """Prometheus's text format and its content type."""
        return prometheus.generate_latest(self.registry), prometheus.CONTENT_TYPE_LATEST
