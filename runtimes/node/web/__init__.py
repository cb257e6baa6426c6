"""The node's page and HTTP API: one server-rendered application, without anything from elsewhere."""
