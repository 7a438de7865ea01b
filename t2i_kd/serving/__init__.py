"""An exported folder as an endpoint that speaks TF Serving's protocols, and a client for both."""
