"""Clients that load a server from a process of their own."""
